// Attentional pair pooling, row by row: forward and backward. The formula is ops/reference.py.
#include "rows.h"

namespace attfm::ATTFM_TARGET {
namespace {

struct Layout {
  int64_t padded_dim, padded_hidden, padded_pairs, rows, chunk;
  bool direct, direct_gradient;  // a row's vectors can be read, their gradient written, where they lie

  explicit Layout(const PoolTask& task) {
    padded_dim = round_up(task.dim, LANES);
    padded_hidden = round_up(task.attention_dim, LANES);
    padded_pairs = round_up(task.pairs, LANES);
    chunk = chunk_pairs(padded_dim, padded_hidden);
    rows = larger(1, smaller(64, 2 * chunk / larger(1, task.pairs)));  // short rows share a chunk
    direct = task.ids == nullptr && padded_dim == task.dim;
    direct_gradient = task.by_entry && task.values == nullptr && task.offsets == nullptr && padded_dim == task.dim;
  }
  int64_t floats(const PoolTask& task, bool backward) const {
    const int64_t fields = task.fields * padded_dim, block = rows * task.pairs + chunk + 64;
    int64_t count = rows * fields + (chunk + ROW_PADDING + LANES) * (padded_dim + LANES) + 2 * block + 4 * padded_pairs;
    count += kept_floats(task, rows);
    if (backward) count += (rows + 1) * fields + 2 * block + (chunk + ROW_PADDING) * padded_hidden + 2 * padded_pairs;
    return round_up(count + 16 * 24, 16);
  }
};

// The entries of one field of one row.
ATTFM_INLINE Range entries_of(const PoolTask& task, int64_t at) {
  if (task.offsets == nullptr) return {at, at + 1};
  return {task.offsets[at], task.offsets[at + 1]};
}

ATTFM_INLINE void copy_padded(const float* from, int64_t k, int64_t kp, float* to) {
  int64_t l = 0;
  for (; l + LANES <= k; l += LANES) store(to + l, load(from + l));
  for (; l < k; ++l) to[l] = from[l];
  for (; l < kp; ++l) to[l] = 0;
}

const float* read_row(const PoolTask& task, const Layout& at, int64_t row, float* buffer) {
  const int64_t m = task.fields, k = task.dim, kp = at.padded_dim;
  if (at.direct) return task.embeddings + row * m * k;
  for (int64_t f = 0; f < m; ++f) {
    float* to = buffer + f * kp;
    if (task.values == nullptr && task.offsets == nullptr) {
      const int64_t source = task.ids != nullptr ? task.ids[row * m + f] : row * m + f;
      copy_padded(task.embeddings + source * k, k, kp, to);
      continue;
    }
    memset(to, 0, 4 * kp);
    const Range entries = entries_of(task, row * m + f);
    for (int64_t n = entries.start; n < entries.stop; ++n) {
      const float x = task.values != nullptr ? task.values[n] : 1.0f;
      const float* from = task.embeddings + int64_t(task.ids[n]) * k;
      for (int64_t l = 0; l < k; ++l) to[l] += x * from[l];
    }
  }
  return buffer;
}

// The gradient of a row's field vectors goes to the entries that they were read from.
void write_gradient(const PoolTask& task, int64_t row, const float* dv, int64_t kp, float* table) {
  const int64_t m = task.fields, k = task.dim;
  for (int64_t f = 0; f < m; ++f, dv += kp) {
    const Range entries = entries_of(task, row * m + f);
    for (int64_t n = entries.start; n < entries.stop; ++n) {
      const float x = task.values != nullptr ? task.values[n] : 1.0f;
      if (task.by_entry) {
        float* to = task.grad_embeddings + n * k;
        for (int64_t l = 0; l < k; ++l) to[l] = x * dv[l];
      } else {
        float* to = table + int64_t(task.ids[n]) * k;
        for (int64_t l = 0; l < k; ++l) to[l] += x * dv[l];
      }
    }
  }
}

// Ask for what row `row` reads and writes: most of it lies outside the cache, at places that hardware does not foresee.
ATTFM_INLINE void ask_for(const PoolTask& task, int64_t row, bool backward) {
  if (row >= task.batch) return;
  const int64_t m = task.fields, k = task.dim;
  const Range first = entries_of(task, row * m), last = entries_of(task, row * m + m - 1);
  for (int64_t n = first.start; n < last.stop; ++n) {
    const float* v = task.embeddings + (task.ids != nullptr ? task.ids[n] : n) * k;
    for (int64_t l = 0; l < k; l += 16) __builtin_prefetch(v + l);
    if (backward && task.by_entry) {
      for (int64_t l = 0; l < k; l += 16) __builtin_prefetch(task.grad_embeddings + n * k + l, 1);
    }
  }
  for (int64_t l = 0; backward && l < k; l += 16) __builtin_prefetch(task.grad_pooled + row * k + l);
}

template <bool DROP>
struct Dropping {};

// Draw which entries of the pair vectors of `rows` rows are kept.
Kept draw_kept(const PoolTask& task, int64_t row0, int64_t rows, float* memory) {
  if (task.pair_dropout <= 0) return {};
  uint16_t* bits = reinterpret_cast<uint16_t*>(memory);
  const int64_t words = kept_words(task.dim);
  for (int64_t r = 0; r < rows; ++r) keep_bits_of_row(task, row0 + r, bits + r * task.pairs * words);
  return {bits, words, kept_factor(task)};
}
Kept of_row(const Kept& kept, int64_t r, int64_t pairs) {
  return kept.bits == nullptr ? kept : Kept{kept.bits + r * pairs * kept.words, kept.words, kept.factor};
}

// From dq (count, padded_dim; null: 0) of the pairs from `at` on and A g: dv_i += dq v_j and dv_j += dq v_i.
template <bool DROP>
Place add_field_gradients(const PoolTask& task, const float* const* v, const float* g, const float* A, const float* q,
                          int64_t kp, int64_t count, Place at, const Kept& kept, float* const* dv) {
  const int64_t P = task.pairs;
  for (int64_t n = 0; n < count;) {
    const int64_t p = at.pair, stop = smaller(P, p + count - n), i = task.first[p];
    int64_t end = p + 1;
    while (end < stop && task.first[end] == i) ++end;
    for (int64_t l = 0; l < kp; l += LANES) {
      const float* row = v[at.row] + l;
      float* to = dv[at.row] + l;
      // dv_i stays in a register while i does: adding to memory each time would wait for the store before.
      const Vec gl = load(g + at.row * kp + l);
      Vec vi = load(row + i * kp), di{};
      if constexpr (DROP) vi *= kept.factor;
      const uint16_t* bits = kept.bits + (at.row * P + p) * kept.words;
      for (int64_t x = p; x < end; ++x, bits += kept.words) {
        const int64_t j = task.second[x] * kp, at_n = n + x - p;
        Vec dq = A[at_n] * gl;
        if (q != nullptr) dq += load(q + at_n * kp + l);
        if constexpr (DROP) dq = keep_where(kept_lanes(bits, l), dq);
        di += dq * load(row + j);
        store(to + j, load(to + j) + dq * vi);
      }
      if constexpr (DROP) di *= kept.factor;
      store(to + i * kp, load(to + i * kp) + di);
    }
    n += end - p;
    at.pair = end == P ? 0 : end;
    at.row += end == P;
  }
  return at;
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
  float* bits = memory.take(kept_floats(task, at.rows));
  const bool attention = task.attention_dim > 0;
  const int64_t bytes = bit_bytes(task.attention_dim);
  const float* v[64];
  const Range mine = share(task.batch, part, parts);
  for (int64_t row0 = mine.start; row0 < mine.stop; row0 += at.rows) {
    const int64_t rows = smaller(at.rows, mine.stop - row0);
    for (int64_t r = 0; r < rows; ++r) {
      ask_for(task, row0 + rows + r, false);
      v[r] = read_row(task, at, row0 + r, vectors + r * m * kp);
    }
    const Kept kept = draw_kept(task, row0, rows, bits);
    if (attention) {
      Place place{0, 0};
      for (int64_t n0 = 0; n0 < rows * P; n0 += at.chunk) {
        const int64_t count = smaller(at.chunk, rows * P - n0);
        place = kept.bits != nullptr ? pair_vectors<true>(v, task.first, task.second, P, kp, count, place, kept, q)
                                     : pair_vectors<false>(v, task.first, task.second, P, kp, count, place, kept, q);
        if (task.bits != nullptr) {
          attention_logits<true>(job.net, q, count, partial, e + n0, task.bits + (row0 * P + n0) * bytes);
        } else {
          attention_logits<false>(job.net, q, count, partial, e + n0, nullptr);
        }
      }
    }
    for (int64_t r = 0; r < rows; ++r)
      finish_row(task, v[r], kp, row0 + r, e + r * P, factors, a, dropped, of_row(kept, r, P));
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
  float* padded_g = memory.take(at.rows * kp);
  float* kept_bits = memory.take(kept_floats(task, at.rows));
  float* sums = job.sums + part * job.sum_stride;
  float* grad_bias = sums;
  float* grad_gate = grad_bias + P;
  float* G = grad_gate + P;
  float* s = G + (kp + ROW_PADDING) * at.padded_hidden;
  const bool attention = task.attention_dim > 0;
  const int64_t bytes = bit_bytes(task.attention_dim);
  float* table = task.grad_embeddings;
  if (!task.by_entry && part > 0) table = job.slot_sums + (part - 1) * task.slot_count * task.dim;
  for (int64_t p = 0; p < P; ++p) row_memory.dropped[p] = 1.0f;
  const float* v[64];
  float* dv[64];
  const Range mine = share(task.batch, part, parts);
  for (int64_t row0 = mine.start; row0 < mine.stop; row0 += at.rows) {
    const int64_t rows = smaller(at.rows, mine.stop - row0);
    const Kept kept = draw_kept(task, row0, rows, kept_bits);
    const float* g = kp == task.dim ? task.grad_pooled + row0 * kp : padded_g;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t row = row0 + r;
      ask_for(task, row + 1, true);
      v[r] = read_row(task, at, row, vectors + r * m * kp);
      dv[r] = at.direct_gradient ? task.grad_embeddings + row * m * kp : gradients + r * m * kp;
      const float* gr = g + r * kp;
      if (kp != task.dim) {
        copy_padded(task.grad_pooled + row * task.dim, task.dim, kp, padded_g + r * kp);
      }
      if (task.plain) {
        plain_row_gradient(task, v[r], kp, gr, dv[r]);
        continue;
      }
      memset(dv[r], 0, 4 * m * kp);
      row_gradient(task, v[r], gr, kp, row, row_memory, A + r * P, d + r * P, grad_bias, grad_gate, of_row(kept, r, P));
    }
    // dq = A g + d W(h M);  dv_i += dq v_j,  dv_j += dq v_i
    Place place{0, 0};
    for (int64_t n0 = 0; n0 < rows * P && !task.plain; n0 += at.chunk) {
      const int64_t count = smaller(at.chunk, rows * P - n0);
      const auto work = [&]<bool DROP>(Dropping<DROP>) {
        if (attention) {
          pair_vectors<DROP>(v, task.first, task.second, P, kp, count, place, kept, q);
          const uint8_t* bits = task.bits != nullptr ? task.bits + (row0 * P + n0) * bytes : nullptr;
          attention_gradients(job.net, q, d + n0, count, bits, dm, G, s);
        }
        place = add_field_gradients<DROP>(task, v, g, A + n0, attention ? q : nullptr, kp, count, place, kept, dv);
      };
      kept.bits != nullptr ? work(Dropping<true>{}) : work(Dropping<false>{});
    }
    if (at.direct_gradient) continue;
    for (int64_t r = 0; r < rows; ++r) write_gradient(task, row0 + r, dv[r], kp, table);
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
  if (!task.by_entry) {
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
