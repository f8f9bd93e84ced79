// Scoring by lookup, row by row: a row's logits are the same bits whatever rows are beside it.
#include "lookup.h"

#include <cmath>

#include "kernels.h"
#include "simd.h"
#include "threads.h"

namespace attfm::ATTFM_TARGET {
namespace {

typedef float Pair __attribute__((vector_size(8)));
typedef float Four __attribute__((vector_size(16)));

template <class V>
ATTFM_INLINE V load_as(const float* p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}

// The sums of some cells by their numbers; each has PARTS vectors.
template <class V, int PARTS>
void add_cells(const float* cells, const uint32_t* at, int64_t count, double* sums) {
  constexpr int SIZE = int(sizeof(V) / 4), WIDTH = PARTS * SIZE, CHAINS = 4 / PARTS > 1 ? 4 / PARTS : 2;
  // Cells of either sign leave little of a long sum, of which a float has lost as much as of its largest part: only a
  // few are added up in floats.
  constexpr int64_t FEW = 64;
  for (int l = 0; l < WIDTH; ++l) sums[l] = 0;
  for (int64_t n = 0; n < count;) {
    const int64_t stop = n + FEW < count ? n + FEW : count;
    // Several chains of additions, so that none waits for another.
    V totals[CHAINS][PARTS] = {};
    for (; n + CHAINS <= stop; n += CHAINS) {
#pragma GCC unroll 4
      for (int c = 0; c < CHAINS; ++c) {
        const float* cell = cells + size_t(at[n + c]) * WIDTH;
#pragma GCC unroll 4
        for (int p = 0; p < PARTS; ++p) totals[c][p] += load_as<V>(cell + p * SIZE);
      }
    }
    for (; n < stop; ++n)
      for (int p = 0; p < PARTS; ++p) totals[0][p] += load_as<V>(cells + size_t(at[n]) * WIDTH + p * SIZE);
    for (int c = 1; c < CHAINS; ++c)
      for (int p = 0; p < PARTS; ++p) totals[0][p] += totals[c][p];
    float few[WIDTH];
    memcpy(few, totals[0], sizeof few);
    for (int l = 0; l < WIDTH; ++l) sums[l] += double(few[l]);
  }
}

void add_wide(const float* cells, const uint32_t* at, int64_t count, int64_t width, double* sums) {
  for (int64_t l = 0; l < width; ++l) sums[l] = 0;
  for (int64_t n = 0; n < count; ++n) {
    const float* cell = cells + size_t(at[n]) * size_t(width);
    for (int64_t l = 0; l < width; ++l) sums[l] += double(cell[l]);
  }
}

void add_tables(const LookupTask& task, const uint32_t* at, double* sums) {
  typedef float One __attribute__((vector_size(4)));
  switch (task.width) {
    case 1:
      return add_cells<One, 1>(task.cells, at, task.pairs, sums);
    case 2:
      return add_cells<Pair, 1>(task.cells, at, task.pairs, sums);
    case 4:
      return add_cells<Four, 1>(task.cells, at, task.pairs, sums);
    case 8:
      return add_cells<Four, 2>(task.cells, at, task.pairs, sums);
    case 12:
      return add_cells<Four, 3>(task.cells, at, task.pairs, sums);
    case 16:
      return add_cells<Four, 4>(task.cells, at, task.pairs, sums);
    default:
      return add_wide(task.cells, at, task.pairs, task.width, sums);
  }
}

// The numbers of a row's cells; `one` has the id of each field that has one.
ATTFM_INLINE void find_cells(const LookupTask& task, const int32_t* one, uint32_t* at) {
  if (task.pairs == 0) return;
  const uint32_t *origin = (const uint32_t*)task.origin, *step = (const uint32_t*)task.step,
                 *mask = (const uint32_t*)task.mask;
  for (int64_t i = 0; i + 1 < task.fields; ++i) {
    const uint32_t a = uint32_t(one[i]);
    const int64_t count = task.fields - 1 - i;
    const int32_t* other = one + i + 1;
    for (int64_t n = 0; n < count; ++n) at[n] = origin[n] + a * step[n] + (uint32_t(other[n]) & mask[n]);
    at += count, origin += count, step += count, mask += count;
  }
}

void add_sums(const LookupTask& task, const int32_t* one, double* logits) {
  for (int64_t n = 0; n < task.sums; ++n) {
    const int64_t cell = task.sum_origin[n] + one[task.sum_first[n]] * task.sum_step[n] + one[task.sum_second[n]];
    for (int64_t c = 0; c < task.outputs; ++c) logits[c] += task.sum_cells[cell * task.sum_width + c];
  }
}

// Memory of a thread.
struct Room {
  uint32_t* at;    // (2, pairs)
  int32_t* one;    // (2, fields)
  double* sums;    // (width)
  float* vectors;  // (fields, dim)
  float *e, *pq;   // (computed), (computed, outputs)
};

// v_f = sum of x V[id], of the fields that are in computed pairs (of all: those are most).
void sum_vectors(const LookupTask& task, int64_t row, const float* V, float* vectors) {
  for (int64_t f = 0; f < task.fields; ++f) {
    const int64_t place = row * task.fields + f;
    const int64_t start = task.offsets != nullptr ? task.offsets[place] : place;
    const int64_t stop = task.offsets != nullptr ? task.offsets[place + 1] : place + 1;
    float* v = vectors + f * task.dim;
    for (int64_t l = 0; l < task.dim; ++l) v[l] = 0;
    for (int64_t n = start; n < stop; ++n) {
      const float x = task.values != nullptr ? task.values[n] : 1.0f;
      const float* from = V + int64_t(task.ids[n]) * task.dim;
      for (int64_t l = 0; l < task.dim; ++l) v[l] += x * from[l];
    }
  }
}

// h . relu(W q + b)
float attention_logit(const LookupTask& task, const float* x, const float* y, const float* W, const float* b,
                      const float* h) {
  Vec total{};
  for (int64_t t = 0; t < task.hidden; t += LANES) {
    Vec hidden = load(b + t);
    const float* w = W + t;
    for (int64_t l = 0; l < task.dim; ++l, w += task.hidden) hidden += broadcast(x[l] * y[l]) * load(w);
    total += relu(hidden) * load(h + t);
  }
  return sum(total);
}

// Adds what the computed pairs of one machine give to its sums of E and N, or to the logits where nothing divides.
void add_computed(const LookupTask& task, int64_t row, int64_t m, const Room& room, double* E, double* N,
                  double* logits) {
  const int64_t k = task.dim, O = task.outputs;
  const float* P = task.projections + m * k * O;
  const float* factors = task.factors + m * task.computed * O;
  sum_vectors(task, row, task.embeddings + m * task.features * k, room.vectors);
  float most = task.pairs > 0 ? 0.0f : -INFINITY;
  for (int64_t p = 0; p < task.computed; ++p) {
    const float *x = room.vectors + task.computed_first[p] * k, *y = room.vectors + task.computed_second[p] * k;
    float* pq = room.pq + p * O;
    for (int64_t c = 0; c < O; ++c) pq[c] = 0;
    for (int64_t l = 0; l < k; ++l) {
      const float q = x[l] * y[l];
      for (int64_t c = 0; c < O; ++c) pq[c] += q * P[l * O + c];
    }
    for (int64_t c = 0; c < O; ++c) pq[c] *= factors[p * O + c];
    if (!task.attention) {
      for (int64_t c = 0; c < O; ++c) logits[c] += pq[c];
      continue;
    }
    const float* W = task.W + m * k * task.hidden;
    room.e[p] = attention_logit(task, x, y, W, task.b + m * task.hidden, task.h + m * task.hidden) +
                task.biases[m * task.computed + p];
    most = room.e[p] > most ? room.e[p] : most;
  }
  if (!task.attention || task.computed == 0) return;
  // E of the tables is less the shift already, and in the range of a float; what is computed may be far above.
  const double scale = task.pairs > 0 ? exp(-double(most)) : 0.0;
  *E *= scale;
  for (int64_t c = 0; c < O; ++c) N[c] *= scale;
  for (int64_t p = 0; p < task.computed; ++p) {
    const double share = exp(double(room.e[p]) - double(most));
    *E += share;
    for (int64_t c = 0; c < O; ++c) N[c] += share * room.pq[p * O + c];
  }
}

// The id of each field that has one feature.
ATTFM_INLINE const int32_t* ids_of(const LookupTask& task, int64_t row, int32_t* one) {
  if (task.offsets == nullptr) return task.ids + row * task.fields;
  for (int64_t f = 0; f < task.fields; ++f) one[f] = task.ids[task.offsets[row * task.fields + f]];
  return one;
}

void add_linear(const LookupTask& task, int64_t row, double* logits) {
  const int64_t m = task.fields, O = task.outputs;
  const int64_t start = task.offsets != nullptr ? task.offsets[row * m] : row * m;
  const int64_t stop = task.offsets != nullptr ? task.offsets[(row + 1) * m] : (row + 1) * m;
  if (O == 1 && task.values == nullptr) {
    float total = 0, other = 0;
    int64_t n = start;
    for (; n + 2 <= stop; n += 2) {
      total += task.linear[task.ids[n]];
      other += task.linear[task.ids[n + 1]];
    }
    if (n < stop) total += task.linear[task.ids[n]];
    logits[0] += double(total) + double(other);
    return;
  }
  for (int64_t n = start; n < stop; ++n) {
    const double x = task.values != nullptr ? task.values[n] : 1.0;
    const float* w = task.linear + int64_t(task.ids[n]) * O;
    for (int64_t c = 0; c < O; ++c) logits[c] += x * w[c];
  }
}

}  // namespace

void lookup(const LookupTask& task, int64_t start, int64_t count) {
  const int64_t O = task.outputs, M = task.machines;
  Room room{};
  room.at = static_cast<uint32_t*>(scratch(0, size_t(2 * task.pairs + 1) * 4));
  room.one = static_cast<int32_t*>(scratch(1, size_t(2 * task.fields) * 4));
  room.vectors = static_cast<float*>(scratch(2, size_t(task.fields * task.dim + task.computed * (1 + O)) * 4));
  room.e = room.vectors + task.fields * task.dim;
  room.pq = room.e + task.computed;
  double* N = static_cast<double*>(scratch(3, size_t(O + task.width) * 8));
  room.sums = N + O;

  const int32_t* one = count > 0 ? ids_of(task, start, room.one) : nullptr;
  if (count > 0) find_cells(task, one, room.at);
  for (int64_t n = 0; n < task.width; ++n) room.sums[n] = 0;
  for (int64_t r = 0; r < count; ++r) {
    const int64_t row = start + r;
    const uint32_t* at = room.at + (r % 2) * task.pairs;
    const int32_t* own = one;
    if (r + 1 < count) {
      uint32_t* next = room.at + ((r + 1) % 2) * task.pairs;
      one = ids_of(task, row + 1, room.one + ((r + 1) % 2) * task.fields);
      find_cells(task, one, next);
      for (int64_t n = 0; task.ask_ahead && n < task.pairs; ++n)
        __builtin_prefetch(task.cells + size_t(next[n]) * size_t(task.width));
    }
    if (task.pairs > 0) add_tables(task, at, room.sums);
    double* logits = task.logits + row * O;
    for (int64_t c = 0; c < O; ++c) logits[c] = task.base[c] + (task.attention ? 0.0 : room.sums[c]);
    add_linear(task, row, logits);
    add_sums(task, own, logits);
    for (int64_t m = 0; m < M; ++m) {
      const double* sums = room.sums + m * (1 + O);
      double E = task.attention ? sums[0] : 0.0;
      for (int64_t c = 0; c < O; ++c) N[c] = task.attention ? sums[1 + c] : 0.0;
      if (task.computed > 0) add_computed(task, row, m, room, &E, N, logits);
      if (E > 0)
        for (int64_t c = 0; c < O; ++c) logits[c] += N[c] / E;
    }
  }
}

}  // namespace attfm::ATTFM_TARGET
