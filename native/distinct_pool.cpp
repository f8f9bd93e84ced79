// Attentional pair pooling with the attention network run once for each distinct pair of features.
//
// A pair vector, its attention logit and W(h M) depend on the two features only, not on the row. So the network runs
// on the distinct pairs; each row looks its logits up, and backward first adds up d over the rows that share a pair.
#include "rows.h"

namespace attfm::ATTFM_TARGET {
namespace {

constexpr int64_t BLOCK = 16;  // rows that are looked up together, so that each line of the index is read once

struct DistinctJob {
  const DistinctTask& task;
  const Network& net;
  int64_t padded_dim, chunk, workspace;
  float* workspaces;
  const float* vectors;  // (slots, padded_dim)
  float* e;              // (distinct + padding)
  float* d;              // backward: (threads, d_stride)
  int64_t d_stride;
  float *sums, *slot_sums;
  int64_t sum_stride;
};

void pair_chunk(const DistinctJob& job, int64_t start, int64_t count, float* q) {
  const int32_t* members = job.task.members + 2 * start;
  const int64_t kp = job.padded_dim;
  for (int64_t n = 0; n < count; ++n) {
    const float *x = job.vectors + members[2 * n] * kp, *y = job.vectors + members[2 * n + 1] * kp;
    for (int64_t l = 0; l < kp; l += LANES) store(q + n * kp + l, load(x + l) * load(y + l));
  }
}

const float* gather_row(const DistinctJob& job, int64_t row, float* buffer) {
  const PoolTask& task = job.task.pool;
  const int64_t kp = job.padded_dim;
  for (int64_t f = 0; f < task.fields; ++f) {
    const float* from = job.vectors + task.ids[row * task.fields + f] * kp;
    for (int64_t l = 0; l < kp; l += LANES) store(buffer + f * kp + l, load(from + l));
  }
  return buffer;
}

void logits_part(void* context, int part, int parts) {
  const DistinctJob& job = *static_cast<DistinctJob*>(context);
  const DistinctTask& task = job.task;
  Workspace memory{job.workspaces + part * job.workspace};
  float* q = memory.take((job.chunk + ROW_PADDING) * job.padded_dim);
  float* partial = memory.take((job.chunk + ROW_PADDING + LANES) * LANES);
  float* e = memory.take(job.chunk + LANES);
  const int64_t bytes = bit_bytes(task.pool.attention_dim);
  const Range mine = share(task.distinct, part, parts);
  for (int64_t n = mine.start; n < mine.stop; n += job.chunk) {
    const int64_t count = smaller(job.chunk, mine.stop - n);
    pair_chunk(job, n, count, q);
    if (task.pool.bits != nullptr) {
      attention_logits<true>(job.net, q, count, partial, e, task.pool.bits + n * bytes);
    } else {
      attention_logits<false>(job.net, q, count, partial, e, nullptr);
    }
    memcpy(job.e + n, e, 4 * count);
  }
}

void rows_part(void* context, int part, int parts) {
  const DistinctJob& job = *static_cast<DistinctJob*>(context);
  const PoolTask& task = job.task.pool;
  Workspace memory{job.workspaces + part * job.workspace};
  const int64_t P = task.pairs, padded_pairs = round_up(P, LANES);
  float* buffer = memory.take(task.fields * job.padded_dim);
  float* e = memory.take(BLOCK * P);
  float* a = memory.take(padded_pairs);
  float* dropped = memory.take(padded_pairs);
  float* factors = pair_factors(task, memory.take(padded_pairs));
  const Range mine = share(task.batch, part, parts);
  for (int64_t row0 = mine.start; row0 < mine.stop; row0 += BLOCK) {
    const int64_t rows = smaller(BLOCK, mine.stop - row0);
    for (int64_t p = 0; p < P; ++p) {
      const float* from = job.e + job.task.offsets[p];
      const uint16_t* index = job.task.index + p * task.batch + row0;
      for (int64_t r = 0; r < rows; ++r) e[r * P + p] = from[index[r]];
    }
    for (int64_t r = 0; r < rows; ++r) {
      const float* v = gather_row(job, row0 + r, buffer);
      finish_row(task, v, job.padded_dim, row0 + r, e + r * P, factors, a, dropped);
    }
  }
}

void row_gradients_part(void* context, int part, int parts) {
  const DistinctJob& job = *static_cast<DistinctJob*>(context);
  const PoolTask& task = job.task.pool;
  Workspace memory{job.workspaces + part * job.workspace};
  const int64_t P = task.pairs, padded_pairs = round_up(P, LANES), kp = job.padded_dim, m = task.fields;
  float* buffer = memory.take(m * kp);
  float* others = memory.take(m * kp);
  float* g = memory.take(kp);
  float* A = memory.take(padded_pairs);
  float* d = memory.take(BLOCK * P);
  RowMemory row_memory;
  row_memory.dA = memory.take(padded_pairs);
  row_memory.factors = pair_factors(task, memory.take(padded_pairs));
  row_memory.dropped = memory.take(padded_pairs);
  row_memory.gv = memory.take(m * kp);
  for (int64_t p = 0; p < P; ++p) row_memory.dropped[p] = 1.0f;
  float* sums = job.sums + part * job.sum_stride;
  float* shared = job.d + part * job.d_stride;
  float* slots = job.slot_sums + part * task.slot_count * kp;
  const Range mine = share(task.batch, part, parts);
  for (int64_t row0 = mine.start; row0 < mine.stop; row0 += BLOCK) {
    const int64_t rows = smaller(BLOCK, mine.stop - row0);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t row = row0 + r;
      const float* v = gather_row(job, row, buffer);
      memcpy(g, task.grad_pooled + row * task.dim, 4 * task.dim);
      for (int64_t l = task.dim; l < kp; ++l) g[l] = 0;
      row_gradient(task, v, g, kp, row, row_memory, A, d + r * P, sums, sums + P);
      // The part of dq that differs from row to row, A g: dv_i = g * (sum over j of A_ij v_j)
      memset(others, 0, 4 * m * kp);
      for (int64_t p = 0, end; p < P; p = end) {
        const int64_t i = task.first[p] * kp;
        for (end = p + 1; end < P && task.first[end] == task.first[p];) ++end;
        for (int64_t l = 0; l < kp; l += LANES) {
          const Vec vi = load(v + i + l);
          Vec of_i{};
          for (int64_t x = p; x < end; ++x) {
            const int64_t j = task.second[x] * kp + l;
            of_i += A[x] * load(v + j);
            store(others + j, load(others + j) + A[x] * vi);
          }
          store(others + i + l, load(others + i + l) + of_i);
        }
      }
      for (int64_t f = 0; f < m; ++f) {
        float* to = slots + task.ids[row * m + f] * kp;
        for (int64_t l = 0; l < kp; l += LANES) {
          store(to + l, load(to + l) + load(others + f * kp + l) * load(g + l));
        }
      }
    }
    for (int64_t p = 0; p < P; ++p) {
      float* to = shared + job.task.offsets[p];
      const uint16_t* index = job.task.index + p * task.batch + row0;
      for (int64_t r = 0; r < rows; ++r) to[index[r]] += d[r * P + p];
    }
  }
}

void pair_gradients_part(void* context, int part, int parts) {
  const DistinctJob& job = *static_cast<DistinctJob*>(context);
  const DistinctTask& task = job.task;
  Workspace memory{job.workspaces + part * job.workspace};
  const int64_t kp = job.padded_dim, padded_hidden = job.net.padded_hidden;
  float* q = memory.take((job.chunk + ROW_PADDING) * kp);
  float* dm = memory.take((job.chunk + ROW_PADDING) * padded_hidden);
  float* d = memory.take(job.chunk + ROW_PADDING);
  float* G = job.sums + part * job.sum_stride + 2 * task.pool.pairs;
  float* s = G + (kp + ROW_PADDING) * padded_hidden;
  float* slots = job.slot_sums + part * task.pool.slot_count * kp;
  const int64_t bytes = bit_bytes(task.pool.attention_dim);
  const Range mine = share(task.distinct, part, parts);
  for (int64_t n0 = mine.start; n0 < mine.stop; n0 += job.chunk) {
    const int64_t count = smaller(job.chunk, mine.stop - n0);
    pair_chunk(job, n0, count, q);
    for (int64_t n = 0; n < count; ++n) {
      float total = job.d[n0 + n];
      for (int other = 1; other < task.pool.threads; ++other) total += job.d[other * job.d_stride + n0 + n];
      d[n] = total;
    }
    attention_gradients(job.net, q, d, count, task.pool.bits != nullptr ? task.pool.bits + n0 * bytes : nullptr, dm, G,
                        s);
    const int32_t* members = task.members + 2 * n0;
    for (int64_t n = 0; n < count; ++n) {
      const int64_t i = members[2 * n] * kp, j = members[2 * n + 1] * kp;
      for (int64_t l = 0; l < kp; l += LANES) {
        const Vec dq = load(q + n * kp + l);
        store(slots + i + l, load(slots + i + l) + dq * load(job.vectors + j + l));
        store(slots + j + l, load(slots + j + l) + dq * load(job.vectors + i + l));
      }
    }
  }
}

// grad_embeddings = the sum of all threads' slot gradients, in order; each thread a range of the slots.
void add_slots_part(void* context, int part, int parts) {
  const DistinctJob& job = *static_cast<DistinctJob*>(context);
  const PoolTask& task = job.task.pool;
  const int64_t kp = job.padded_dim;
  const Range mine = share(task.slot_count, part, parts);
  for (int64_t slot = mine.start; slot < mine.stop; ++slot) {
    for (int64_t l = 0; l < task.dim; ++l) {
      float total = job.slot_sums[slot * kp + l];
      for (int other = 1; other < task.threads; ++other)
        total += job.slot_sums[(other * task.slot_count + slot) * kp + l];
      task.grad_embeddings[slot * task.dim + l] = total;
    }
  }
}

// The vectors of all slots with rows of whole vectors; made only where dim is not that already.
struct PaddedVectors {
  float* memory = nullptr;
  const float* vectors;
  PaddedVectors(const PoolTask& task, int64_t kp) : vectors(task.embeddings) {
    if (kp == task.dim) return;
    memory = static_cast<float*>(allocate(4 * task.slot_count * kp, true));
    for (int64_t slot = 0; slot < task.slot_count; ++slot) {
      memcpy(memory + slot * kp, task.embeddings + slot * task.dim, 4 * task.dim);
    }
    vectors = memory;
  }
  ~PaddedVectors() { release(memory); }
};

DistinctJob make_job(const DistinctTask& task, const Network& net) {
  DistinctJob job{task, net, net.padded_dim, 0, 0, nullptr, nullptr, nullptr, nullptr, 0, nullptr, nullptr, 0};
  job.chunk = chunk_pairs(net.padded_dim, net.padded_hidden);
  const int64_t kp = net.padded_dim, P = task.pool.pairs, padded_pairs = round_up(P, LANES);
  const int64_t network = (job.chunk + ROW_PADDING + LANES) * (kp + LANES + net.padded_hidden + 2);
  const int64_t rows = 3 * task.pool.fields * kp + kp + BLOCK * P + 6 * padded_pairs;
  job.workspace = round_up(larger(network, rows) + 16 * 24, 16);
  job.workspaces = static_cast<float*>(scratch(1, 4 * job.workspace * task.pool.threads));
  return job;
}

}  // namespace

void distinct_forward(const DistinctTask& task) {
  float* packed = static_cast<float*>(scratch(0, 4 * Network::floats(task.pool.dim, task.pool.attention_dim) + 64));
  const Network net(task.pool, packed);
  DistinctJob job = make_job(task, net);
  const PaddedVectors padded(task.pool, job.padded_dim);
  job.vectors = padded.vectors;
  job.e = static_cast<float*>(scratch(2, 4 * (task.distinct + LANES)));
  run_parts(task.pool.threads, logits_part, &job);
  run_parts(task.pool.threads, rows_part, &job);
}

void distinct_backward(const DistinctTask& task) {
  const PoolTask& pool = task.pool;
  float* packed = static_cast<float*>(scratch(0, 4 * Network::floats(pool.dim, pool.attention_dim) + 64));
  const Network net(pool, packed);
  DistinctJob job = make_job(task, net);
  const PaddedVectors padded(pool, job.padded_dim);
  job.vectors = padded.vectors;
  const int64_t P = pool.pairs;
  job.sum_stride = round_up(2 * P + NetworkGradient::floats(pool.dim, pool.attention_dim), 16);
  job.sums = static_cast<float*>(scratch(2, 4 * job.sum_stride * pool.threads));
  memset(job.sums, 0, 4 * job.sum_stride * pool.threads);
  job.d_stride = round_up(task.distinct, 16);
  job.d = static_cast<float*>(allocate(4 * job.d_stride * pool.threads, true));
  job.slot_sums = static_cast<float*>(allocate(4 * pool.slot_count * job.padded_dim * pool.threads, true));
  run_parts(pool.threads, row_gradients_part, &job);
  run_parts(pool.threads, pair_gradients_part, &job);
  run_parts(pool.threads, add_slots_part, &job);
  release(job.d);
  release(job.slot_sums);
  for (int part = 1; part < pool.threads; ++part) {
    const float* other = job.sums + part * job.sum_stride;
    for (int64_t p = 0; p < 2 * P; ++p) job.sums[p] += other[p];
  }
  if (pool.grad_bias != nullptr) memcpy(pool.grad_bias, job.sums, 4 * P);
  if (pool.grad_gate != nullptr) memcpy(pool.grad_gate, job.sums + P, 4 * P);
  finish_network(pool, net, job.sums + 2 * P, job.sum_stride, pool.threads);
}

}  // namespace attfm::ATTFM_TARGET
