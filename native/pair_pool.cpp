// Attentional pair pooling, row by row: forward and backward. The formula is ops/reference.py.
#include "rows.h"

namespace attfm::ATTFM_TARGET {
namespace {

struct Layout {
  int64_t padded_dim, padded_hidden, padded_pairs, rows, chunk;
  bool direct;  // a row's vectors can be read (and their gradient written) where they lie

  explicit Layout(const PoolTask& task) {
    padded_dim = round_up(task.dim, LANES);
    padded_hidden = round_up(task.attention_dim, LANES);
    padded_pairs = round_up(task.pairs, LANES);
    chunk = chunk_pairs(padded_dim, padded_hidden);
    rows = larger(1, smaller(64, 2 * chunk / larger(1, task.pairs)));  // short rows share a chunk
    direct = task.ids == nullptr && padded_dim == task.dim;
  }
  int64_t floats(const PoolTask& task, bool backward) const {
    const int64_t fields = task.fields * padded_dim, block = rows * task.pairs + chunk + 64;
    int64_t count = rows * fields + (chunk + ROW_PADDING + LANES) * (padded_dim + LANES) + 2 * block + 4 * padded_pairs;
    if (backward) count += (rows + 1) * fields + 2 * block + (chunk + ROW_PADDING) * padded_hidden + 2 * padded_pairs;
    return round_up(count + 16 * 24, 16);
  }
};

const float* read_row(const PoolTask& task, const Layout& at, int64_t row, float* buffer) {
  const int64_t m = task.fields, k = task.dim, kp = at.padded_dim;
  if (at.direct) return task.embeddings + row * m * k;
  for (int64_t f = 0; f < m; ++f) {
    const int64_t source = task.ids != nullptr ? task.ids[row * m + f] : row * m + f;
    memcpy(buffer + f * kp, task.embeddings + source * k, 4 * k);
    for (int64_t l = k; l < kp; ++l) buffer[f * kp + l] = 0;
  }
  return buffer;
}

struct Job {
  const PoolTask& task;
  const Network& net;
  Layout at;
  float* workspaces;
  int64_t workspace;  // floats of one thread
  float* sums;        // backward: each thread's parameter gradients, zeroed
  int64_t sum_stride;
  float* slot_sums;  // backward with ids: the embedding gradients of threads 1, 2, ...
};

void forward_part(void* context, int part, int parts) {
  const Job& job = *static_cast<Job*>(context);
  const PoolTask& task = job.task;
  const Layout& at = job.at;
  Workspace memory{job.workspaces + part * job.workspace};
  const int64_t kp = at.padded_dim, P = task.pairs, m = task.fields;
  float* vectors = memory.take(at.rows * m * kp);
  float* q = memory.take((at.chunk + ROW_PADDING) * kp);
  float* partial = memory.take((at.chunk + ROW_PADDING + LANES) * LANES);
  float* e = memory.take(at.rows * P + at.chunk + 64);
  float* a = memory.take(at.padded_pairs);
  float* factors = pair_factors(task, memory.take(at.padded_pairs));
  float* dropped = memory.take(at.padded_pairs);
  const bool attention = task.attention_dim > 0;
  const int64_t bytes = bit_bytes(task.attention_dim);
  const float* v[64];
  const Range mine = share(task.batch, part, parts);
  for (int64_t row0 = mine.start; row0 < mine.stop; row0 += at.rows) {
    const int64_t rows = smaller(at.rows, mine.stop - row0);
    for (int64_t r = 0; r < rows; ++r) v[r] = read_row(task, at, row0 + r, vectors + r * m * kp);
    if (attention) {
      Place place{0, 0};
      for (int64_t n0 = 0; n0 < rows * P; n0 += at.chunk) {
        const int64_t count = smaller(at.chunk, rows * P - n0);
        place = pair_vectors(v, task.first, task.second, P, kp, count, place, q);
        if (task.bits != nullptr) {
          attention_logits<true>(job.net, q, count, partial, e + n0, task.bits + (row0 * P + n0) * bytes);
        } else {
          attention_logits<false>(job.net, q, count, partial, e + n0, nullptr);
        }
      }
    }
    for (int64_t r = 0; r < rows; ++r) finish_row(task, v[r], kp, row0 + r, e + r * P, factors, a, dropped);
  }
}

void backward_part(void* context, int part, int parts) {
  const Job& job = *static_cast<Job*>(context);
  const PoolTask& task = job.task;
  const Layout& at = job.at;
  Workspace memory{job.workspaces + part * job.workspace};
  const int64_t kp = at.padded_dim, P = task.pairs, m = task.fields;
  float* vectors = memory.take(at.rows * m * kp);
  float* q = memory.take((at.chunk + ROW_PADDING) * kp);
  float* dm = memory.take((at.chunk + ROW_PADDING) * at.padded_hidden);
  float* d = memory.take(at.rows * P + at.chunk + 64);
  float* A = memory.take(at.rows * P + at.chunk + 64);
  RowMemory row_memory;
  row_memory.dA = memory.take(at.padded_pairs);
  row_memory.factors = pair_factors(task, memory.take(at.padded_pairs));
  row_memory.dropped = memory.take(at.padded_pairs);
  row_memory.gv = memory.take(m * kp);
  float* gradients = memory.take(at.rows * m * kp);
  float* g = memory.take(at.rows * kp);
  float* sums = job.sums + part * job.sum_stride;
  float* grad_bias = sums;
  float* grad_gate = grad_bias + P;
  float* G = grad_gate + P;
  float* s = G + (kp + ROW_PADDING) * at.padded_hidden;
  const bool attention = task.attention_dim > 0;
  const int64_t bytes = bit_bytes(task.attention_dim);
  float* slots = task.grad_embeddings;
  if (task.ids != nullptr && part > 0) slots = job.slot_sums + (part - 1) * task.slot_count * task.dim;
  for (int64_t p = 0; p < P; ++p) row_memory.dropped[p] = 1.0f;
  const float* v[64];
  float* dv[64];
  const Range mine = share(task.batch, part, parts);
  for (int64_t row0 = mine.start; row0 < mine.stop; row0 += at.rows) {
    const int64_t rows = smaller(at.rows, mine.stop - row0);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t row = row0 + r;
      v[r] = read_row(task, at, row, vectors + r * m * kp);
      dv[r] = at.direct ? task.grad_embeddings + row * m * kp : gradients + r * m * kp;
      float* gr = g + r * kp;
      memcpy(gr, task.grad_pooled + row * task.dim, 4 * task.dim);
      for (int64_t l = task.dim; l < kp; ++l) gr[l] = 0;
      if (task.plain) {
        plain_row_gradient(task, v[r], kp, gr, dv[r]);
        continue;
      }
      memset(dv[r], 0, 4 * m * kp);
      row_gradient(task, v[r], gr, kp, row, row_memory, A + r * P, d + r * P, grad_bias, grad_gate);
    }
    // dq = A g + d W(h M);  dv_i += dq v_j,  dv_j += dq v_i
    int64_t r = 0, p = 0;
    for (int64_t n0 = 0; n0 < rows * P && !task.plain; n0 += at.chunk) {
      const int64_t count = smaller(at.chunk, rows * P - n0);
      if (attention) {
        pair_vectors(v, task.first, task.second, P, kp, count, {r, p}, q);
        const uint8_t* bits = task.bits != nullptr ? task.bits + (row0 * P + n0) * bytes : nullptr;
        attention_gradients(job.net, q, d + n0, count, bits, dm, G, s);
      }
      for (int64_t n = 0; n < count;) {
        const int64_t stop = smaller(P, p + count - n), i = task.first[p];
        int64_t end = p + 1;
        while (end < stop && task.first[end] == i) ++end;
        for (int64_t l = 0; l < kp; l += LANES) {
          const float* row = v[r] + l;
          float* to = dv[r] + l;
          // dv_i stays in a register while i does: adding to memory each time would wait for the store before.
          const Vec vi = load(row + i * kp), gl = load(g + r * kp + l);
          Vec di{};
          for (int64_t x = p; x < end; ++x) {
            const int64_t j = task.second[x] * kp, at_n = n + x - p;
            Vec dq = A[n0 + at_n] * gl;
            if (attention) dq += load(q + at_n * kp + l);
            di += dq * load(row + j);
            store(to + j, load(to + j) + dq * vi);
          }
          store(to + i * kp, load(to + i * kp) + di);
        }
        n += end - p;
        p = end == P ? 0 : end;
        r += end == P;
      }
    }
    if (at.direct) continue;
    for (int64_t x = 0; x < rows; ++x) {
      for (int64_t f = 0; f < m; ++f) {
        const int64_t entry = (row0 + x) * m + f;
        const float* from = dv[x] + f * kp;
        if (task.ids == nullptr) {
          memcpy(task.grad_embeddings + entry * task.dim, from, 4 * task.dim);
        } else {
          float* to = slots + int64_t(task.slots != nullptr ? task.slots[entry] : task.ids[entry]) * task.dim;
          for (int64_t l = 0; l < task.dim; ++l) to[l] += from[l];
        }
      }
    }
  }
}

// grad_embeddings += those of the other threads, in order, each thread a range of the entries.
void add_slots(void* context, int part, int parts) {
  const Job& job = *static_cast<Job*>(context);
  const int64_t entries = job.task.slot_count * job.task.dim;
  const Range mine = share(entries, part, parts);
  float* to = job.task.grad_embeddings;
  for (int other = 0; other + 1 < job.task.threads; ++other) {
    const float* from = job.slot_sums + other * entries;
    for (int64_t x = mine.start; x < mine.stop; ++x) to[x] += from[x];
  }
}

struct Packed {
  float* memory;
  Network net;
  explicit Packed(const PoolTask& task)
      : memory(static_cast<float*>(scratch(0, 4 * Network::floats(task.dim, task.attention_dim) + 64))),
        net(task, memory) {}
};

}  // namespace

void pool_forward(const PoolTask& task) {
  Packed packed(task);
  Job job{task, packed.net, Layout(task), nullptr, 0, nullptr, 0, nullptr};
  job.workspace = job.at.floats(task, false);
  job.workspaces = static_cast<float*>(scratch(1, 4 * job.workspace * task.threads));
  run_parts(task.threads, forward_part, &job);
}

void pool_backward(const PoolTask& task) {
  Packed packed(task);
  Job job{task, packed.net, Layout(task), nullptr, 0, nullptr, 0, nullptr};
  job.workspace = job.at.floats(task, true) + job.at.rows * job.at.padded_dim;
  job.workspaces = static_cast<float*>(scratch(1, 4 * job.workspace * task.threads));
  const int64_t P = task.pairs;
  job.sum_stride = round_up(2 * P + NetworkGradient::floats(task.dim, task.attention_dim), 16);
  job.sums = static_cast<float*>(scratch(2, 4 * job.sum_stride * task.threads));
  memset(job.sums, 0, 4 * job.sum_stride * task.threads);
  if (task.ids != nullptr) {
    memset(task.grad_embeddings, 0, 4 * task.slot_count * task.dim);
    if (task.threads > 1) {
      job.slot_sums = static_cast<float*>(allocate(4 * task.slot_count * task.dim * (task.threads - 1), true));
    }
  }
  run_parts(task.threads, backward_part, &job);
  if (job.slot_sums != nullptr) {
    run_parts(task.threads, add_slots, &job);
    release(job.slot_sums);
  }
  for (int part = 1; part < task.threads; ++part) {
    const float* other = job.sums + part * job.sum_stride;
    for (int64_t p = 0; p < 2 * P; ++p) job.sums[p] += other[p];
  }
  if (task.grad_bias != nullptr) memcpy(task.grad_bias, job.sums, 4 * P);
  if (task.grad_gate != nullptr) memcpy(task.grad_gate, job.sums + P, 4 * P);
  if (task.attention_dim > 0) finish_network(task, packed.net, job.sums + 2 * P, job.sum_stride, task.threads);
}

}  // namespace attfm::ATTFM_TARGET
