// Attentional pair pooling, row by row: forward and backward. The formula is ops/reference.py.
#include "attention.h"

namespace attfm::ATTFM_TARGET {
namespace {

constexpr float MINUS_INFINITY = -__builtin_inff();

// 0 or 1 / (1 - dropout) for one weight: a hash of (seed, index), so backward and any thread see the same.
ATTFM_INLINE uint32_t mix(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}
void dropout_factors(const PoolTask& task, int64_t row, float* factors) {
  const uint32_t threshold = uint32_t(double(task.dropout) * 16777216.0);
  const float kept = 1.0f / (1.0f - task.dropout);
  const uint32_t low = uint32_t(task.seed), high = uint32_t(task.seed >> 32);
  const uint32_t row_key = mix(mix(uint32_t(row) ^ low) + uint32_t(uint64_t(row) >> 32) + high);
  for (int32_t p = 0; p < task.pairs; ++p) {
    const uint32_t x = mix(mix(uint32_t(p) * 0x9e3779b1u ^ row_key) + high);
    factors[p] = (x >> 8) < threshold ? 0.0f : kept;
  }
}

// The memory of one thread, carved from one block.
struct Workspace {
  float* next;
  float* take(int64_t floats) {
    float* p = next;
    next += round_up(floats, 16);
    return p;
  }
};

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

void pair_vector(const float* vi, const float* vj, int64_t kp, float* q) {
  for (int64_t l = 0; l < kp; l += LANES) store(q + l, load(vi + l) * load(vj + l));
}

// a = softmax(e + c) over `pairs` entries; a has room up to a multiple of LANES.
void softmax(const float* e, const float* bias, int64_t pairs, float* a) {
  const int64_t padded = round_up(pairs, LANES);
  for (int64_t p = 0; p < pairs; ++p) a[p] = bias != nullptr ? e[p] + bias[p] : e[p];
  for (int64_t p = pairs; p < padded; ++p) a[p] = MINUS_INFINITY;
  Vec top = load(a);
  for (int64_t p = LANES; p < padded; p += LANES) {
    Vec x = load(a + p);
    top = x > top ? x : top;
  }
  float highest = MINUS_INFINITY;
  for (int lane = 0; lane < LANES; ++lane) highest = top[lane] > highest ? top[lane] : highest;
  Vec total{};
  for (int64_t p = 0; p < padded; p += LANES) {
    Vec x = exponential(load(a + p) - highest);
    total += x;
    store(a + p, x);
  }
  const float inverse = 1.0f / sum(total);
  for (int64_t p = 0; p < padded; p += LANES) store(a + p, load(a + p) * inverse);
}

// pooled = sum over i of v_i * (sum over j of A_ij v_j), WIDTH vectors of dim at a time, pairs taken UNROLL at once.
template <int WIDTH, int UNROLL>
ATTFM_INLINE void pool_panel(const PoolTask& task, const float* v, int64_t kp, const float* A, int64_t l, Vec* out) {
  const int32_t *first = task.first, *second = task.second;
  Vec total[WIDTH] = {}, lost[WIDTH] = {};  // compensated: the sum over hundreds of pairs keeps its digits
  for (int64_t p = 0; p < task.pairs;) {
    const int32_t i = first[p];
    int64_t stop = p;
    while (stop < task.pairs && first[stop] == i) ++stop;
    Vec acc[UNROLL][WIDTH] = {};
    for (; p + UNROLL <= stop; p += UNROLL) {
#pragma GCC unroll 4
      for (int u = 0; u < UNROLL; ++u) {
        const float* vj = v + second[p + u] * kp + l;
#pragma GCC unroll 4
        for (int n = 0; n < WIDTH; ++n) acc[u][n] += A[p + u] * load(vj + n * LANES);
      }
    }
    for (; p < stop; ++p) {
      const float* vj = v + second[p] * kp + l;
#pragma GCC unroll 4
      for (int n = 0; n < WIDTH; ++n) acc[0][n] += A[p] * load(vj + n * LANES);
    }
    const float* vi = v + i * kp + l;
#pragma GCC unroll 4
    for (int n = 0; n < WIDTH; ++n) {
      Vec row = acc[0][n];
      for (int u = 1; u < UNROLL; ++u) row += acc[u][n];
      const Vec term = row * load(vi + n * LANES) - lost[n];
      const Vec next = total[n] + term;
      const Vec rounding = (next - total[n]) - term;
      lost[n] = rounding == rounding ? rounding : Vec{};  // NaN where the sum is infinite
      total[n] = next;
    }
  }
  for (int n = 0; n < WIDTH; ++n) out[n] = total[n];
}

void write_padded(float* to, const Vec* values, int count, int64_t l, int64_t dim) {
  for (int n = 0; n < count; ++n, l += LANES) {
    float lanes[LANES];
    store(lanes, values[n]);
    if (l < dim) memcpy(to + l, lanes, 4 * smaller(LANES, dim - l));
  }
}

void pool_row(const PoolTask& task, const float* v, int64_t kp, const float* A, float* pooled) {
  int64_t l = 0;
  Vec out[4];
  for (; l + 4 * LANES <= kp; l += 4 * LANES) {
    pool_panel<4, 2>(task, v, kp, A, l, out);
    write_padded(pooled, out, 4, l, task.dim);
  }
  for (; l < kp; l += LANES) {
    pool_panel<1, 4>(task, v, kp, A, l, out);
    write_padded(pooled, out, 1, l, task.dim);
  }
}

// FM: sum over i < j of v_i v_j, through running sums of the fields before. (The usual half of
// square-of-sum less sum-of-squares costs the same and cancels.)
void plain_row(const PoolTask& task, const float* v, int64_t kp, float* pooled) {
  for (int64_t l = 0; l < kp; l += LANES) {
    Vec before = load(v + l), total{};
    for (int64_t f = 1; f < task.fields; ++f) {
      Vec x = load(v + f * kp + l);
      total += before * x;
      before += x;
    }
    total *= task.scale;
    write_padded(pooled, &total, 1, l, task.dim);
  }
}
void plain_row_gradient(const PoolTask& task, const float* v, int64_t kp, const float* g, float* dv) {
  for (int64_t l = 0; l < kp; l += LANES) {
    const Vec gl = load(g + l) * task.scale;
    Vec others{};
    for (int64_t f = 0; f < task.fields; ++f) {
      store(dv + f * kp + l, others);
      others += load(v + f * kp + l);
    }
    others = Vec{};
    for (int64_t f = task.fields - 1; f >= 0; --f) {
      store(dv + f * kp + l, gl * (load(dv + f * kp + l) + others));
      others += load(v + f * kp + l);
    }
  }
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

// scale * g, and 1 in the padding.
float* pair_factors(const PoolTask& task, float* factors) {
  for (int64_t p = 0; p < task.pairs; ++p) factors[p] = task.scale * (task.gate != nullptr ? task.gate[p] : 1.0f);
  return factors;
}

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
  const bool attention = task.attention_dim > 0, dropout = task.dropout > 0;
  const int64_t bytes = bit_bytes(task.attention_dim);
  const float* v[64];
  const Range mine = share(task.batch, part, parts);
  for (int64_t row0 = mine.start; row0 < mine.stop; row0 += at.rows) {
    const int64_t rows = smaller(at.rows, mine.stop - row0);
    for (int64_t r = 0; r < rows; ++r) v[r] = read_row(task, at, row0 + r, vectors + r * m * kp);
    if (attention) {
      int64_t r = 0, p = 0;
      for (int64_t n0 = 0; n0 < rows * P; n0 += at.chunk) {
        const int64_t count = smaller(at.chunk, rows * P - n0);
        for (int64_t n = 0; n < count; ++n) {
          pair_vector(v[r] + task.first[p] * kp, v[r] + task.second[p] * kp, kp, q + n * kp);
          if (++p == P) p = 0, ++r;
        }
        if (task.bits != nullptr) {
          attention_logits<true>(job.net, q, count, partial, e + n0, task.bits + (row0 * P + n0) * bytes);
        } else {
          attention_logits<false>(job.net, q, count, partial, e + n0, nullptr);
        }
      }
    }
    for (int64_t r = 0; r < rows; ++r) {
      float* pooled = task.pooled + (row0 + r) * task.dim;
      const int64_t at_row = (row0 + r) * P;
      if (attention) {
        softmax(e + r * P, task.bias, P, a);
        if (task.attention != nullptr) memcpy(task.attention + at_row, a, 4 * P);
        for (int64_t p = 0; p < P; ++p) a[p] *= factors[p];
      } else {
        memcpy(a, factors, 4 * P);
      }
      if (dropout) {
        dropout_factors(task, row0 + r, dropped);
        for (int64_t p = 0; p < P; ++p) a[p] *= dropped[p];
      }
      if (task.weights != nullptr) memcpy(task.weights + at_row, a, 4 * P);
      if (task.plain) {
        plain_row(task, v[r], kp, pooled);
      } else {
        pool_row(task, v[r], kp, a, pooled);
      }
    }
  }
}

// dA = g . q_ij for all pairs of a row; gv has room for one row of vectors.
void pooled_dot_pairs(const PoolTask& task, const float* v, const float* g, int64_t kp, float* gv, float* dA) {
  for (int64_t f = 0; f < task.fields; ++f) pair_vector(v + f * kp, g, kp, gv + f * kp);
  for (int64_t p = 0; p < task.pairs; p += LANES) {
    float sums[LANES * LANES];
    const int count = int(smaller(LANES, task.pairs - p));
    for (int u = 0; u < count; ++u) {
      const float *x = gv + task.first[p + u] * kp, *y = v + task.second[p + u] * kp;
      Vec total{};
      for (int64_t l = 0; l < kp; l += LANES) total += load(x + l) * load(y + l);
      store(sums + u * LANES, total);
    }
    for (int u = count; u < LANES; ++u) store(sums + u * LANES, Vec{});
    store(dA + p, sum_each(sums));
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
  float* dA = memory.take(at.padded_pairs);
  float* factors = pair_factors(task, memory.take(at.padded_pairs));
  float* dropped = memory.take(at.padded_pairs);
  float* gradients = memory.take(at.rows * m * kp);
  float* gv = memory.take(m * kp);
  float* g = memory.take(at.rows * kp);
  float* sums = job.sums + part * job.sum_stride;
  float* grad_bias = sums;
  float* grad_gate = grad_bias + P;
  float* G = grad_gate + P;
  float* s = G + (kp + ROW_PADDING) * at.padded_hidden;
  const bool attention = task.attention_dim > 0, dropout = task.dropout > 0;
  const int64_t bytes = bit_bytes(task.attention_dim);
  float* slots = task.grad_embeddings;
  if (task.ids != nullptr && part > 0) slots = job.slot_sums + (part - 1) * task.slot_count * task.dim;
  for (int64_t p = 0; p < P; ++p) dropped[p] = 1.0f;
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
      if (dropout) dropout_factors(task, row, dropped);
      float *Ar = A + r * P, *dr = d + r * P;
      if (attention || task.grad_gate != nullptr) {
        pooled_dot_pairs(task, v[r], gr, kp, gv, dA);
        if (task.grad_weights != nullptr) {
          const float* gw = task.grad_weights + row * P;
          for (int64_t p = 0; p < P; ++p) dA[p] += gw[p];
        }
      }
      if (!attention) {
        for (int64_t p = 0; p < P; ++p) Ar[p] = factors[p] * dropped[p];
        if (task.grad_gate != nullptr)
          for (int64_t p = 0; p < P; ++p) grad_gate[p] += task.scale * dropped[p] * dA[p];
        continue;
      }
      // d = a (da - sum a da), with da the gradient of the weights before scale, gate and dropout
      const float* a = task.attention + row * P;
      if (task.grad_gate != nullptr)
        for (int64_t p = 0; p < P; ++p) grad_gate[p] += task.scale * dropped[p] * a[p] * dA[p];
      for (int64_t p = 0; p < P; ++p) {
        const float f = factors[p] * dropped[p];
        Ar[p] = a[p] * f;
        dA[p] *= f;
      }
      float partial[LANES] = {};
      int64_t p = 0;
      for (; p + LANES <= P; p += LANES) store(partial, load(partial) + load(a + p) * load(dA + p));
      float mean = sum(load(partial));
      for (; p < P; ++p) mean += a[p] * dA[p];
      for (p = 0; p < P; ++p) dr[p] = a[p] * (dA[p] - mean);
      if (task.grad_bias != nullptr)
        for (p = 0; p < P; ++p) grad_bias[p] += dr[p];
    }
    // dq = A g + d W(h M);  dv_i += dq v_j,  dv_j += dq v_i
    int64_t r = 0, p = 0;
    for (int64_t n0 = 0; n0 < rows * P && !task.plain; n0 += at.chunk) {
      const int64_t count = smaller(at.chunk, rows * P - n0);
      int64_t r1 = r, p1 = p;
      if (attention) {
        for (int64_t n = 0; n < count; ++n) {
          pair_vector(v[r1] + task.first[p1] * kp, v[r1] + task.second[p1] * kp, kp, q + n * kp);
          if (++p1 == P) p1 = 0, ++r1;
        }
        const uint8_t* bits = task.bits != nullptr ? task.bits + (row0 * P + n0) * bytes : nullptr;
        attention_gradients(job.net, q, d + n0, count, bits, dm, G, s);
      }
      for (int64_t n = 0; n < count; ++n) {
        const float *vi = v[r] + task.first[p] * kp, *vj = v[r] + task.second[p] * kp, *gr = g + r * kp;
        float *di = dv[r] + task.first[p] * kp, *dj = dv[r] + task.second[p] * kp;
        const float weight = A[n0 + n];
        for (int64_t l = 0; l < kp; l += LANES) {
          Vec dq = weight * load(gr + l);
          if (attention) dq += load(q + n * kp + l);
          store(di + l, load(di + l) + dq * load(vj + l));
          store(dj + l, load(dj + l) + dq * load(vi + l));
        }
        if (++p == P) p = 0, ++r;
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

// The machine's peak: independent multiply-adds of registers, nothing else.
double peak(int64_t steps) {
  struct Work {
    int64_t steps;
  } work{steps};
  Vec acc[12];
  for (int i = 0; i < 12; ++i) acc[i] = broadcast(float(i));
  Vec x = broadcast(0.999f), y = broadcast(1e-3f);
  for (int64_t s = 0; s < work.steps; ++s) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) acc[i] = acc[i] * x + y;
    __asm__ volatile("" : "+x"(x), "+x"(y));
  }
  Vec total{};
  for (int i = 0; i < 12; ++i) total += acc[i];
  return sum(total) == 12345.0f ? 0.0 : 2.0 * 12 * LANES * double(steps);
}

}  // namespace attfm::ATTFM_TARGET

namespace attfm {
#define ATTFM_TEXT(x) #x
#define ATTFM_NAME(x) ATTFM_TEXT(x)
#define ATTFM_JOIN(a, b) a##b
#define ATTFM_TABLE(target) ATTFM_JOIN(target, _kernels)
extern const Kernels ATTFM_TABLE(ATTFM_TARGET) = {
    ATTFM_NAME(ATTFM_TARGET),      ATTFM_TARGET::LANES, ATTFM_TARGET::pool_forward, ATTFM_TARGET::pool_backward,
    ATTFM_TARGET::peak,
};
}  // namespace attfm
