// The end of scoring: w0 + sum of x w[id] + pooled . projection, each sum in one fixed order.
#include "kernels.h"
#include "simd.h"

namespace attfm::ATTFM_TARGET {

void add_logits(const ScoreTask& task, const float* pooled, int64_t start, int64_t count) {
  const int64_t m = task.pool.fields, k = task.pool.dim, outputs = task.outputs;
  for (int64_t r = 0; r < count; ++r, pooled += k) {
    const Range entries = task.pool.offsets == nullptr
                              ? Range{(start + r) * m, (start + r + 1) * m}
                              : Range{task.pool.offsets[(start + r) * m], task.pool.offsets[(start + r + 1) * m]};
    float* to = task.logits + (start + r) * outputs;
    for (int64_t c = 0; c < outputs; ++c) to[c] = task.intercept[c];
    for (int64_t n = entries.start; n < entries.stop; ++n) {
      const float x = task.pool.values != nullptr ? task.pool.values[n] : 1.0f;
      const float* w = task.linear + int64_t(task.pool.ids[n]) * outputs;
      for (int64_t c = 0; c < outputs; ++c) to[c] += x * w[c];
    }
    if (task.projection == nullptr) continue;
    if (outputs > 1) {
      for (int64_t l = 0; l < k; ++l)
        for (int64_t c = 0; c < outputs; ++c) to[c] += pooled[l] * task.projection[l * outputs + c];
      continue;
    }
    Vec total{};
    int64_t l = 0;
    for (; l + LANES <= k; l += LANES) total += load(pooled + l) * load(task.projection + l);
    float rest = sum(total);
    for (; l < k; ++l) rest += pooled[l] * task.projection[l];
    to[0] += rest;
  }
}

}  // namespace attfm::ATTFM_TARGET
