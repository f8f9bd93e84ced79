// Scoring by lookup: what a pair of fields gives is read from a table of its two features, or computed.
#pragma once

#include <cstdint>

namespace attfm {

// logit = base + sum of x w[id] + sum over machines (sum of N) / (sum of E) + sums that no attention divides.
// A cell of a pair of fields holds E, N (outputs) for each machine with attention, or without attention one sum for
// each output. The cell of ids a and b is number origin + a step + (b & mask), modulo 2^32.
struct LookupTask {
  int64_t fields, outputs, machines;
  bool attention;
  const double* base;   // (outputs)
  const float* linear;  // (features, outputs)

  int64_t pairs;                        // all of them, i < j, or 0: no tables
  const int32_t *origin, *step, *mask;  // (pairs); without a table: a cell of zeros, 0, 0
  const float* cells;                   // (cells, width)
  int64_t width;                        // 1, 2 or a multiple of 4
  bool ask_ahead;                       // the cells don't stay in the cache: ask memory for those of the next row

  // More sums: cells of some pairs, whose numbers are origin + a step + b.
  int64_t sums, sum_width;
  const int32_t *sum_first, *sum_second;  // (sums)
  const int64_t *sum_origin, *sum_step;   // (sums)
  const float* sum_cells;                 // (cells, sum_width)

  // Pairs that are computed; W, b, h have their last axis padded with zeros to `hidden`, a multiple of 16.
  int64_t computed, features, dim, hidden;
  const int32_t *computed_first, *computed_second;  // (computed)
  const float* embeddings;                          // (machines, features, dim)
  const float* projections;                         // (machines, dim, outputs)
  const float* factors;                             // (machines, computed, outputs)
  const float *W, *b, *h;                           // (machines, dim, hidden), (machines, hidden) twice; with attention
  const float* biases;                              // (machines, computed), less the shift of E

  // The rows.
  int64_t batch;
  const int32_t* ids;      // (batch, fields), or entries
  const float* values;     // as ids, or null: 1
  const int64_t* offsets;  // (batch * fields + 1), or null: one entry for each field
  double* logits;          // (batch, outputs)
};

}  // namespace attfm
