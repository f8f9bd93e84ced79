// Blocks of vectors in the lanes: the attention network, the projection and the sums over pairs, for ranking.cpp.
#pragma once

#include "ranking.h"
#include "simd.h"

namespace attfm::ATTFM_TARGET {
namespace {

constexpr int WIDTH = 3;  // vectors side by side: with TILE columns 24 accumulators of 32 registers, or 12 of 16
constexpr int BLOCK = WIDTH * LANES;
constexpr int TILE = LANES == 16 ? 8 : 4;  // columns of a register tile
constexpr int ROUNDING = 256;              // floats that the beginnings of arrays in a workspace may cost
constexpr float NOTHING = -1e30f;          // log of an empty sum

template <int COLUMNS>
struct Columns {};

// Call f(first, Columns<...>) for tiles that cover `count` columns; the last one may reach beyond, up to a multiple
// of 4.
template <class F>
ATTFM_INLINE void for_tiles(int64_t count, F&& f) {
  int64_t c = 0;
  if constexpr (TILE > 4) {
    for (; count - c > 4; c += TILE) f(c, Columns<TILE>{});
  }
  for (; c < count; c += 4) f(c, Columns<4>{});
}

// A matrix (depth, count) in tiles: [tile][depth][columns of the tile], zeros beyond the count.
template <class Value>
void pack(int64_t depth, int64_t count, float* to, Value&& value) {
  for_tiles(count, [&]<int COLUMNS>(int64_t first, Columns<COLUMNS>) {
    for (int64_t k = 0; k < depth; ++k)
      for (int64_t c = 0; c < COLUMNS; ++c)
        to[first * depth + k * COLUMNS + c] = first + c < count ? value(k, first + c) : 0.0f;
  });
}

// acc[c][n] += sum over k of x[k][n] w[k][c].
template <int COLUMNS>
ATTFM_INLINE void multiply(const float* x, const float* w, int64_t depth, Vec (&acc)[COLUMNS][WIDTH]) {
  for (int64_t k = 0; k < depth; ++k, x += BLOCK, w += COLUMNS) {
    Vec v[WIDTH];
#pragma GCC unroll 4
    for (int n = 0; n < WIDTH; ++n) v[n] = load(x + n * LANES);
#pragma GCC unroll 8
    for (int c = 0; c < COLUMNS; ++c) {
      const Vec factor = broadcast(w[c]);
#pragma GCC unroll 4
      for (int n = 0; n < WIDTH; ++n) acc[c][n] += factor * v[n];
    }
  }
}

// e += h . relu(x w + b) of one tile of hidden units. Functions of their own: inlined, registers would not suffice.
template <int COLUMNS>
__attribute__((noinline)) void hidden_tile(const float* x, const float* w, const float* b, const float* h,
                                           int64_t depth, float* e) {
  Vec acc[COLUMNS][WIDTH];
#pragma GCC unroll 8
  for (int c = 0; c < COLUMNS; ++c)
#pragma GCC unroll 4
    for (int n = 0; n < WIDTH; ++n) acc[c][n] = broadcast(b[c]);
  multiply<COLUMNS>(x, w, depth, acc);
#pragma GCC unroll 4
  for (int n = 0; n < WIDTH; ++n) {
    Vec total = load(e + n * LANES);
#pragma GCC unroll 8
    for (int c = 0; c < COLUMNS; ++c) total += broadcast(h[c]) * relu(acc[c][n]);
    store(e + n * LANES, total);
  }
}

template <int COLUMNS>
__attribute__((noinline)) void product_tile(const float* x, const float* w, int64_t depth, float* to) {
  Vec acc[COLUMNS][WIDTH] = {};
  multiply<COLUMNS>(x, w, depth, acc);
#pragma GCC unroll 8
  for (int c = 0; c < COLUMNS; ++c)
#pragma GCC unroll 4
    for (int n = 0; n < WIDTH; ++n) store(to + c * BLOCK + n * LANES, acc[c][n]);
}

// to (count rounded up to 4, BLOCK) = the columns of x (depth, BLOCK) times a packed matrix.
void products(const float* x, const float* packed, int64_t depth, int64_t count, float* to) {
  for_tiles(count, [&]<int COLUMNS>(int64_t c, Columns<COLUMNS>) {
    product_tile<COLUMNS>(x, packed + c * depth, depth, to + c * BLOCK);
  });
}

struct Memory {
  float* next;
  float* take(int64_t floats) {
    float* start = next;
    next += round_up(floats, 16);
    return start;
  }
};

// The attention network and the projection, packed.
struct Packed {
  int64_t dim, hidden, outputs, columns;
  float *W, *b, *h, *projection;

  static int64_t floats(const PairNetwork& net) {
    const int64_t hidden = round_up(net.attention_dim, 4);
    return net.dim * (hidden + round_up(net.outputs, 4)) + 2 * hidden + 64;
  }
  Packed(const PairNetwork& net, Memory& memory)
      : dim(net.dim), hidden(net.attention_dim), outputs(net.outputs), columns(round_up(net.attention_dim, 4)) {
    W = memory.take(dim * columns), b = memory.take(columns), h = memory.take(columns);
    projection = memory.take(dim * round_up(outputs, 4));
    pack(dim, hidden, W, [&](int64_t k, int64_t t) { return net.W[k * hidden + t]; });
    for (int64_t t = 0; t < columns; ++t) b[t] = t < hidden ? net.b[t] : 0.0f;
    for (int64_t t = 0; t < columns; ++t) h[t] = t < hidden ? net.h[t] : 0.0f;
    pack(dim, outputs, projection, [&](int64_t k, int64_t o) { return net.projection[k * outputs + o]; });
  }
  // e (BLOCK) = bias + h . relu(x w + b), w packed as W.
  void logits(const float* x, const float* w, float bias, float* e) const {
    for (int n = 0; n < WIDTH; ++n) store(e + n * LANES, broadcast(bias));
    for_tiles(hidden, [&]<int COLUMNS>(int64_t c, Columns<COLUMNS>) {
      hidden_tile<COLUMNS>(x, w + c * dim, b + c, h + c, dim, e);
    });
  }
};

// e (pairs, BLOCK) becomes exp(e - most), and with s (pairs * outputs, BLOCK): most, their sum, and the sums of
// exp(e - most) g s for each output; gate of pair p at gate[p * step].
void sum_pairs(float* e, const float* s, int64_t pairs, int64_t outputs, const float* gate, int64_t step, float* most,
               float* total, float* effects) {
  for (int64_t n = 0; n < BLOCK; n += LANES) {
    Vec highest = broadcast(NOTHING), sum{};
    for (int64_t p = 0; p < pairs; ++p) {
      const Vec x = load(e + p * BLOCK + n);
      highest = x > highest ? x : highest;
    }
    for (int64_t p = 0; p < pairs; ++p) {
      const Vec x = exponential(load(e + p * BLOCK + n) - highest);
      sum += x;
      store(e + p * BLOCK + n, x * gate[p * step]);
    }
    store(most + n, highest);
    store(total + n, sum);
    for (int64_t o = 0; o < outputs; ++o) {
      Vec effect{};
      for (int64_t p = 0; p < pairs; ++p) effect += load(e + p * BLOCK + n) * load(s + (p * outputs + o) * BLOCK + n);
      store(effects + o * BLOCK + n, effect);
    }
  }
}

// x (dim, BLOCK): the vectors of n <= BLOCK entries as columns, zeros beyond.
void columns_of(const float* vectors, int64_t dim, const int32_t* entries, int64_t step, int64_t n, float* x) {
  for (int64_t lane = 0; lane < n; ++lane) {
    if (lane + 8 < n) __builtin_prefetch(vectors + int64_t(entries[(lane + 8) * step]) * dim);
    const float* from = vectors + int64_t(entries[lane * step]) * dim;
    for (int64_t k = 0; k < dim; ++k) x[k * BLOCK + lane] = from[k];
  }
  for (int64_t k = 0; k < dim; ++k)
    for (int64_t lane = n; lane < BLOCK; ++lane) x[k * BLOCK + lane] = 0.0f;
}

}  // namespace
}  // namespace attfm::ATTFM_TARGET
