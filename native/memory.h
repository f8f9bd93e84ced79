// Pair memory: the effect of each remembered pair of values, found by hash.
#pragma once

#include <cstdint>

namespace attfm {

// A hash table with open addressing: key k stands at the first free slot from (k * 0x9E3779B97F4A7C15) >> shift on.
struct MemoryTask {
  int64_t batch, fields, pairs, outputs;
  const int32_t* ids;             // (batch, fields), or entries with offsets
  const int64_t* offsets;         // (batch, fields) or null: one entry for each field; read for remembered fields only
  const int32_t* level;           // (features) level of each feature within its field
  const int64_t *first, *second;  // (pairs) field numbers
  const int64_t *width, *offset;  // (pairs): key = offset + level of first * width + level of second
  const int64_t* slots;           // (mask + 1) keys, -1 where free
  int64_t mask;
  int shift;
  const float* effects;      // (slots, outputs)
  const float* unknown;      // (pairs, outputs) of a pair of values that is not there
  const int32_t* slot_rows;  // (slots) or null with counts
  int threads;
  float* sums;      // (batch, outputs), effects are added; or null
  float* found;     // (batch, pairs, outputs) each effect, or null
  int32_t* counts;  // (batch, pairs) training rows of each, or null
};

void find_remembered(const MemoryTask& task);

}  // namespace attfm
