// What one row needs around the attention network: softmax, gate, dropout, the pooled sum, and their gradients.
#pragma once

#include "attention.h"

namespace attfm::ATTFM_TARGET {
namespace {

constexpr float MINUS_INFINITY = -__builtin_inff();

// 0 or 1 / (1 - dropout) for one weight: a hash of (seed, index), so backward and any thread see the same.
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
template <int WIDTH, int UNROLL, bool DROP>
ATTFM_INLINE void pool_panel(const PoolTask& task, const float* v, int64_t kp, const float* A, const Kept& kept,
                             int64_t l, Vec* out) {
  const auto entry = [&](const float* vj, int64_t p, int n) {
    Vec x = load(vj + n * LANES);
    if constexpr (DROP) x = keep_where(kept_lanes(kept.bits + p * kept.words, l + n * LANES), x);
    return x;
  };
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
        for (int n = 0; n < WIDTH; ++n) acc[u][n] += A[p + u] * entry(vj, p + u, n);
      }
    }
    for (; p < stop; ++p) {
      const float* vj = v + second[p] * kp + l;
#pragma GCC unroll 4
      for (int n = 0; n < WIDTH; ++n) acc[0][n] += A[p] * entry(vj, p, n);
    }
    const float* vi = v + i * kp + l;
#pragma GCC unroll 4
    for (int n = 0; n < WIDTH; ++n) {
      Vec row = acc[0][n];
      for (int u = 1; u < UNROLL; ++u) row += acc[u][n];
      if constexpr (DROP) row *= kept.factor;
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
    if (l + LANES <= dim) {
      store(to + l, values[n]);
      continue;
    }
    float lanes[LANES];
    store(lanes, values[n]);
    for (int64_t x = 0; l + x < dim && x < LANES; ++x) to[l + x] = lanes[x];
  }
}

template <bool DROP>
void pool_row(const PoolTask& task, const float* v, int64_t kp, const float* A, const Kept& kept, float* pooled) {
  int64_t l = 0;
  Vec out[4];
  for (; l + 4 * LANES <= kp; l += 4 * LANES) {
    pool_panel<4, 2, DROP>(task, v, kp, A, kept, l, out);
    write_padded(pooled, out, 4, l, task.dim);
  }
  for (; l < kp; l += LANES) {
    pool_panel<1, 4, DROP>(task, v, kp, A, kept, l, out);
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
[[maybe_unused]] void plain_row_gradient(const PoolTask& task, const float* v, int64_t kp, const float* g, float* dv) {
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

// scale * g
float* pair_factors(const PoolTask& task, float* factors) {
  for (int64_t p = 0; p < task.pairs; ++p) factors[p] = task.scale * (task.gate != nullptr ? task.gate[p] : 1.0f);
  return factors;
}

// dA = g . q_ij for all pairs of a row; gv has room for one row of vectors.
template <bool DROP>
void pooled_dot_pairs(const PoolTask& task, const float* v, const float* g, int64_t kp, const Kept& kept, float* gv,
                      float* dA) {
  for (int64_t f = 0; f < task.fields; ++f) {
    pair_vector(v + f * kp, g, kp, gv + f * kp);
    for (int64_t l = 0; DROP && l < kp; l += LANES) store(gv + f * kp + l, load(gv + f * kp + l) * kept.factor);
  }
  const auto product = [&](const float* x, const float* y, int64_t p, int64_t l) {
    Vec xy = load(x + l) * load(y + l);
    if constexpr (DROP) xy = keep_where(kept_lanes(kept.bits + p * kept.words, l), xy);
    return xy;
  };
  for (int64_t p = 0; p < task.pairs; p += LANES) {
    if (p + LANES <= task.pairs) {
      Vec products[LANES];
#pragma GCC unroll 16
      for (int u = 0; u < LANES; ++u) {
        const float *x = gv + task.first[p + u] * kp, *y = v + task.second[p + u] * kp;
        products[u] = product(x, y, p + u, 0);
        for (int64_t l = LANES; l < kp; l += LANES) products[u] += product(x, y, p + u, l);
      }
      store(dA + p, add_up<LANES>(products));
      continue;
    }
    float sums[LANES * LANES];
    const int count = int(smaller(LANES, task.pairs - p));
    for (int u = 0; u < count; ++u) {
      const float *x = gv + task.first[p + u] * kp, *y = v + task.second[p + u] * kp;
      Vec total{};
      for (int64_t l = 0; l < kp; l += LANES) total += product(x, y, p + u, l);
      store(sums + u * LANES, total);
    }
    for (int u = count; u < LANES; ++u) store(sums + u * LANES, Vec{});
    store(dA + p, sum_each(sums));
  }
}

// From the attention logits e of a row: a, the applied weights and the pooled vector. a, dropped: padded_pairs.
void finish_row(const PoolTask& task, const float* v, int64_t kp, int64_t row, const float* e, const float* factors,
                float* a, float* dropped, const Kept& kept = {}) {
  const int64_t P = task.pairs;
  if (task.attention_dim > 0) {
    softmax(e, task.bias, P, a);
    if (task.attention != nullptr) memcpy(task.attention + row * P, a, 4 * P);
    for (int64_t p = 0; p < P; ++p) a[p] *= factors[p];
  } else {
    memcpy(a, factors, 4 * P);
  }
  if (task.dropout > 0) {
    dropout_factors(task, row, dropped);
    for (int64_t p = 0; p < P; ++p) a[p] *= dropped[p];
  }
  if (task.weights != nullptr) memcpy(task.weights + row * P, a, 4 * P);
  float* pooled = task.pooled + row * task.dim;
  if (task.plain) {
    plain_row(task, v, kp, pooled);
  } else if (kept.bits != nullptr) {
    pool_row<true>(task, v, kp, a, kept, pooled);
  } else {
    pool_row<false>(task, v, kp, a, kept, pooled);
  }
}

// Memory of `row_gradient`: (padded_pairs) each, dropped all 1 at first, and gv for one row of vectors.
struct RowMemory {
  float *factors, *dropped, *dA, *gv;
};

// From the gradient g of a pooled vector (padded): A (pairs), d (pairs, the gradient of the attention logits), and
// sums for the gradients of bias and gate.
void row_gradient(const PoolTask& task, const float* v, const float* g, int64_t kp, int64_t row,
                  const RowMemory& memory, float* A, float* d, float* grad_bias, float* grad_gate,
                  const Kept& kept = {}) {
  const int64_t P = task.pairs;
  const auto [factors, dropped, dA, gv] = memory;
  const bool attention = task.attention_dim > 0;
  if (task.dropout > 0) dropout_factors(task, row, dropped);
  if (attention || task.grad_gate != nullptr) {
    if (kept.bits != nullptr) {
      pooled_dot_pairs<true>(task, v, g, kp, kept, gv, dA);
    } else {
      pooled_dot_pairs<false>(task, v, g, kp, kept, gv, dA);
    }
    if (task.grad_weights != nullptr) {
      const float* gw = task.grad_weights + row * P;
      for (int64_t p = 0; p < P; ++p) dA[p] += gw[p];
    }
  }
  if (!attention) {
    for (int64_t p = 0; p < P; ++p) A[p] = factors[p] * dropped[p];
    if (task.grad_gate != nullptr)
      for (int64_t p = 0; p < P; ++p) grad_gate[p] += task.scale * dropped[p] * dA[p];
    return;
  }
  // d = a (da - sum a da), with da the gradient of the weights before scale, gate and dropout
  const float* a = task.attention + row * P;
  if (task.grad_gate != nullptr)
    for (int64_t p = 0; p < P; ++p) grad_gate[p] += task.scale * dropped[p] * a[p] * dA[p];
  for (int64_t p = 0; p < P; ++p) {
    const float f = factors[p] * dropped[p];
    A[p] = a[p] * f;
    dA[p] *= f;
  }
  Vec partial{};
  int64_t p = 0;
  for (; p + LANES <= P; p += LANES) partial += load(a + p) * load(dA + p);
  float mean = sum(partial);
  for (; p < P; ++p) mean += a[p] * dA[p];
  for (p = 0; p < P; ++p) d[p] = a[p] * (dA[p] - mean);
  if (task.grad_bias != nullptr)
    for (p = 0; p < P; ++p) grad_bias[p] += d[p];
}

}  // namespace
}  // namespace attfm::ATTFM_TARGET
