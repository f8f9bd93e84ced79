// The table of kernels of one instruction set.
#include "simd.h"

#include "kernels.h"

namespace attfm::ATTFM_TARGET {

void pool_forward(const PoolTask& task);
void pool_backward(const PoolTask& task);
void distinct_forward(const DistinctTask& task);
void distinct_backward(const DistinctTask& task);
void add_logits(const ScoreTask& task, const float* pooled, int64_t start, int64_t count);
void update_rows(const RowsTask& task);
void lookup(const LookupTask& task, int64_t start, int64_t count);
void rank_items(const ItemsTask& task);
void rank(const RankTask& task);

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

extern const Kernels ATTFM_TABLE(ATTFM_TARGET);
const Kernels ATTFM_TABLE(ATTFM_TARGET) = {
    ATTFM_NAME(ATTFM_TARGET),
    ATTFM_TARGET::LANES,
    ATTFM_TARGET::pool_forward,
    ATTFM_TARGET::pool_backward,
    ATTFM_TARGET::distinct_forward,
    ATTFM_TARGET::distinct_backward,
    ATTFM_TARGET::add_logits,
    ATTFM_TARGET::update_rows,
    ATTFM_TARGET::lookup,
    ATTFM_TARGET::rank_items,
    ATTFM_TARGET::rank,
    ATTFM_TARGET::peak,
};

}  // namespace attfm
