// Ranking: many items for one context. The formula is ops/ranking.py.
#pragma once

#include <cstdint>

namespace attfm {

// What works a pair out; attention_dim 0: no attention, dim 0: no pairs.
struct PairNetwork {
  int64_t dim, attention_dim, outputs;
  const float *W, *b, *h;   // (dim, attention_dim), (attention_dim), (attention_dim)
  const float* projection;  // (dim, outputs)
};

// The pairs within items: log_sum = log sum exp(e), effect = sum of a g s, s = p . q; without attention sum of g s.
struct ItemsTask {
  PairNetwork network;
  int64_t items, fields;
  const float *bias, *gate;  // (pairs) each
  const float* vectors;      // (entries, dim)
  const int32_t* entries;    // (items, fields)
  int threads;
  float* log_sum;  // (items), written with attention only
  float* effect;   // (items, outputs)
};

// Logits of items for a context.
struct RankTask {
  PairNetwork network;
  int64_t context, fields;  // numbers of fields of the context and of an item
  float scale;
  const float *context_bias, *context_gate;  // (pairs within the context)
  const float *bias, *gate;                  // (context, fields)
  const float* context_vectors;              // (context, dim)
  const float* base;                         // (outputs)

  // Pair memory across: pair r in [memory_starts[f], memory_starts[f + 1]) is of the item's field f, and its key is
  // memory_keys[r] + memory_steps[r] * level of the entry (see memory.h).
  const int64_t *memory_starts, *memory_keys, *memory_steps;
  const int64_t* slots;
  int64_t mask;
  int shift;
  const float *memory_effects, *unknown;  // (slots, outputs), (pairs, outputs)

  int64_t entry_count;
  const float* vectors;                   // (entries, dim)
  const int32_t* level;                   // (entries)
  const int32_t* entries;                 // (items, fields)
  const float *log_sum, *effect, *plain;  // (items), (items, outputs), (items, outputs)

  int64_t count;
  const int32_t* items;   // (count) those that are scored
  const int32_t* listed;  // entries that they have, field by field: [starts[f], starts[f + 1]); or null: to be found
  const int64_t* starts;  // (fields + 1) or null
  int threads;
  float* logits;  // (count, outputs)
};

}  // namespace attfm
