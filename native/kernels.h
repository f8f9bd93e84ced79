// The plain interface between the kernels (compiled once for each instruction set) and everything else.
// Matrices are row-major and contiguous; null pointers stand for "not there" where a comment says so.
#pragma once

#include <cstdint>

#include "ranking.h"

namespace attfm {

// Attentional pair pooling. A row's field vectors come from `embeddings` (batch, fields, dim) or, where `ids`
// is not null, from the table `embeddings` (features, dim): values[n] * table[ids[n]], n = row * fields + field.
// With `offsets` (batch * fields + 1) that vector is the sum over the entries n in [offsets[at], offsets[at + 1]).
struct PoolTask {
  int64_t batch;
  int32_t fields, dim, attention_dim, pairs;  // attention_dim 0: no attention
  const float* embeddings;
  const int32_t* ids;             // (entries)
  const float* values;            // (entries) or null: 1
  const int64_t* offsets;         // or null: one entry for each field of a row
  const float *W, *b, *h;         // (dim, attention_dim), (attention_dim), (attention_dim)
  const float *bias, *gate;       // (pairs) each, or null
  const int32_t *first, *second;  // (pairs) field numbers
  bool plain;                     // all pairs i < j, no attention, gate or dropout: the FM closed form serves
  float scale, dropout;
  double pair_dropout;  // of the entries of the pair vectors; 0 in a DistinctTask: what is dropped depends on the row
  uint64_t seed;
  int32_t threads;

  float* pooled;     // (batch, dim)
  float* weights;    // (batch, pairs) applied weights, or null
  float* attention;  // (batch, pairs) weights before scale, gate and dropout: written by forward (or null), read by
                     // backward
  uint8_t* bits;     // (batch * pairs, bit_bytes(attention_dim)): which hidden units are positive, or null

  const float* grad_pooled;   // (batch, dim)
  const float* grad_weights;  // (batch, pairs) or null
  float* grad_embeddings;     // (entries, dim) if by_entry, always so without ids; else (features, dim)
  bool by_entry;
  int64_t slot_count;                                       // rows of the table, where ids are given
  float *grad_W, *grad_b, *grad_h, *grad_bias, *grad_gate;  // as the parameters
};

// The same with the attention network run once for each distinct pair: pool.embeddings is (slots, dim), pool.ids the
// slot of every entry, pool.bits and the network's gradients belong to distinct pairs. Always with attention.
struct DistinctTask {
  PoolTask pool;
  int64_t distinct;
  const uint16_t* index;   // (pairs, batch) number of the row's pair within pair p
  const int32_t* offsets;  // (pairs + 1)
  const int32_t* members;  // (distinct, 2) slots
};

// logits = w0 + sum of x w[id] + pooled . projection, from ids; pool's outputs and gradients are not used.
struct ScoreTask {
  PoolTask pool;
  bool distinct;  // pool by distinct pairs
  int64_t outputs;
  const float* intercept;   // (outputs)
  const float* linear;      // (features, outputs)
  const float* projection;  // (dim, outputs), or null: no pairs
  float* logits;            // (batch, outputs)
};

// One optimiser step on some rows of a table (features, dim); no row may appear twice.
struct RowsTask {
  int64_t count, dim;
  const int64_t* rows;
  float *parameter, *first, *second;  // first (Adam's mean) null: Adagrad, with its squares in second
  const float* gradient;              // (count, dim)
  float rate, decay, eps, beta1, beta2, correction1, correction2;  // corrections: 1 - beta^step
  int32_t threads;
  // Where an average is kept, null otherwise: it is brought up to date (log_factors - seen[row] has passed), then takes
  // the new row in with the share 1 - keep.
  float* average;
  double* seen;
  double log_factors;
  float keep;
};

// Bytes that the bits of one pair take.
inline int64_t bit_bytes(int64_t attention_dim) { return (attention_dim + 15) / 16 * 2; }

struct LookupTask;  // see lookup.h

struct Kernels {
  const char* name;
  int lanes;
  void (*pool_forward)(const PoolTask&);
  void (*pool_backward)(const PoolTask&);
  void (*distinct_forward)(const DistinctTask&);
  void (*distinct_backward)(const DistinctTask&);
  void (*add_logits)(const ScoreTask&, const float* pooled, int64_t start, int64_t count);
  void (*update_rows)(const RowsTask&);
  void (*lookup)(const LookupTask&, int64_t start, int64_t count);
  void (*rank_items)(const ItemsTask&);
  void (*rank)(const RankTask&);
  double (*peak)(int64_t steps);  // multiply-adds of registers only: returns the floating-point operations done
};

extern const Kernels avx512_kernels, avx2_kernels, portable_kernels;

// The best set for this machine, or the one that ATTFM_ISA names if the machine has it.
const Kernels& kernels();

}  // namespace attfm
