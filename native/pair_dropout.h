// Dropout on the entries of the pair vectors: which are kept, as one bit each, from a counter-based hash.
//
// The bits of entry l of pair p in a row depend on (seed, row, p, l) alone, so forward, backward, any thread and any
// instruction set see the same. One 32-bit hash serves an entry of two pairs, 2k and 2k + 1: 16 bits decide each.
// tests/ops/pair_dropout_mask.py is the readable twin.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace attfm::ATTFM_TARGET {
namespace {

typedef uint32_t HashVec __attribute__((vector_size(4 * LANES)));

ATTFM_INLINE uint32_t mix(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}

// The words of 16 bits that the entries of one pair take.
ATTFM_INLINE int64_t kept_words(int64_t dim) { return (dim + 15) / 16; }
// The floats that the bits of `rows` rows take: `keep_bits_of_row` writes an even number of pairs.
ATTFM_INLINE int64_t kept_floats(const PoolTask& task, int64_t rows) {
  return task.pair_dropout > 0 ? (rows * task.pairs + 1) * kept_words(task.dim) / 2 + 1 : 0;
}

// Lanes of a pair's entries l, l + 1, ...; bits above LANES are those of later entries.
ATTFM_INLINE uint32_t kept_lanes(const uint16_t* kept, int64_t l) {
  return LANES == 16 ? kept[l >> 4] : uint32_t(kept[l >> 4]) >> (l & 15);
}
// What multiplies a kept entry.
ATTFM_INLINE float kept_factor(const PoolTask& task) { return float(1.0 / (1.0 - task.pair_dropout)); }

// kept: (pairs, kept_words), and one more pair where their number is odd.
[[maybe_unused]] void keep_bits_of_row(const PoolTask& task, int64_t row, uint16_t* kept) {
  const int64_t words = kept_words(task.dim);
  const int32_t threshold = int32_t(smaller(65535, int64_t(task.pair_dropout * 65536.0 + 0.5)));
  const uint32_t low = uint32_t(task.seed) ^ 0xa511e9b3u, high = uint32_t(task.seed >> 32) ^ 0x63d83595u;
  const uint32_t first = mix(mix(uint32_t(row) ^ low) + uint32_t(uint64_t(row) >> 32) + high);
  const uint32_t second = mix(first ^ high);
  HashVec lane;
  for (int n = 0; n < LANES; ++n) lane[n] = uint32_t(n);
  uint32_t counter = 0;
  for (int64_t p = 0; p < task.pairs; p += 2, kept += 2 * words) {
    for (int64_t w = 0; w < words; ++w) {
      uint32_t even = 0, odd = 0;
#pragma GCC unroll 4
      for (int part = 0; part < 16; part += LANES, counter += LANES) {
        HashVec x = (lane + counter) * 0x9e3779b1u ^ first;
        x ^= x >> 16;
        x *= 0x7feb352du;
        x += second;  // the hash has 32 bits, the rows have 64 bits of key
        x ^= x >> 15;
        x *= 0x846ca68bu;
        x ^= x >> 16;
        even |= true_bits((IntVec)(x & 0xffffu) >= threshold) << part;
        odd |= true_bits((IntVec)(x >> 16) >= threshold) << part;
      }
      kept[w] = uint16_t(even);
      kept[words + w] = uint16_t(odd);
    }
  }
}

}  // namespace
}  // namespace attfm::ATTFM_TARGET
