// Optimiser steps on the touched rows of a table: the cost is that of the rows, not of the table.
#include <cmath>

#include "kernels.h"
#include "simd.h"
#include "threads.h"

namespace attfm::ATTFM_TARGET {
namespace {

// Rows lie anywhere in tables larger than the cache: those that come soon are asked for ahead.
constexpr int64_t AHEAD = 8;

ATTFM_INLINE void prefetch(const RowsTask& task, int64_t n) {
  const int64_t at = task.rows[n] * task.dim;
  const float* tables[] = {task.parameter, task.first, task.second, task.average};
  for (const float* table : tables) {
    if (table == nullptr) continue;
    for (int64_t l = 0; l < task.dim; l += 16) __builtin_prefetch(table + at + l, 1);
  }
  if (task.seen != nullptr) __builtin_prefetch(task.seen + task.rows[n], 1);
}

template <class Update>
void for_rows(const RowsTask& task, int part, int parts, Update&& update) {
  const Range mine = share(task.count, part, parts);
  const float kept = 1.0f - task.rate * task.decay;
  const double now = task.average != nullptr ? task.log_factors + std::log(double(task.keep)) : 0.0;
  for (int64_t n = mine.start; n < mine.stop; ++n) {
    if (n + AHEAD < mine.stop) prefetch(task, n + AHEAD);
    const int64_t at = task.rows[n] * task.dim;
    float *p = task.parameter + at, *m = task.first != nullptr ? task.first + at : nullptr, *v = task.second + at;
    const float* g = task.gradient + n * task.dim;
    float* a = task.average != nullptr ? task.average + at : nullptr;
    if (a != nullptr) {
      const float passed = float(std::exp(task.log_factors - task.seen[task.rows[n]]));
      for (int64_t l = 0; l < task.dim; ++l) a[l] = p[l] + (a[l] - p[l]) * passed;
    }
    int64_t l = 0;
    for (; l + LANES <= task.dim; l += LANES) {
      store(p + l, load(p + l) * kept);
      update(
          p + l, m + l, v + l, g + l, [](const float* from) { return load(from); },
          [](float* to, Vec x) { store(to, x); });
    }
    for (; l < task.dim; ++l) {
      p[l] *= kept;
      update(p + l, m + l, v + l, g + l, [](const float* from) { return *from; }, [](float* to, float x) { *to = x; });
    }
    if (a != nullptr) {
      for (l = 0; l < task.dim; ++l) a[l] = p[l] + (a[l] - p[l]) * task.keep;
      task.seen[task.rows[n]] = now;
    }
  }
}

ATTFM_INLINE float root(float x) { return __builtin_sqrtf(x); }
ATTFM_INLINE Vec root(Vec x) {
#if ATTFM_LANES == 16
  return (Vec)_mm512_sqrt_ps((__m512)x);
#elif ATTFM_LANES == 8
  return (Vec)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE2__)
  return (Vec)_mm_sqrt_ps((__m128)x);
#else
  for (int lane = 0; lane < LANES; ++lane) x[lane] = __builtin_sqrtf(x[lane]);
  return x;
#endif
}

// Kingma and Ba 2015, algorithm 1, with decoupled weight decay (Loshchilov and Hutter 2019).
void adam_part(void* context, int part, int parts) {
  const RowsTask& task = *static_cast<RowsTask*>(context);
  const float b1 = task.beta1, b2 = task.beta2, size = task.rate / task.correction1, eps = task.eps;
  const float scale = 1.0f / root(task.correction2);
  for_rows(task, part, parts, [=](float* p, float* m, float* v, const float* g, auto get, auto put) {
    const auto gradient = get(g);
    const auto first = get(m) + (gradient - get(m)) * (1.0f - b1);
    const auto second = get(v) * b2 + gradient * gradient * (1.0f - b2);
    put(m, first);
    put(v, second);
    put(p, get(p) - first * size / (root(second) * scale + eps));
  });
}

// Duchi et al. 2011.
void adagrad_part(void* context, int part, int parts) {
  const RowsTask& task = *static_cast<RowsTask*>(context);
  const float rate = task.rate, eps = task.eps;
  for_rows(task, part, parts, [=](float* p, float*, float* v, const float* g, auto get, auto put) {
    const auto gradient = get(g);
    const auto squares = get(v) + gradient * gradient;
    put(v, squares);
    put(p, get(p) - gradient * rate / (root(squares) + eps));
  });
}

}  // namespace

void update_rows(const RowsTask& task) {
  RowsTask copy = task;
  run_parts(task.threads, task.first != nullptr ? adam_part : adagrad_part, &copy);
}

}  // namespace attfm::ATTFM_TARGET
