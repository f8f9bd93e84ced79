// The attention network on a chunk of pair vectors q (count, dim): the one place where the time goes.
//
//   forward   e_n  = h . relu(q_n W + b)
//   backward  dm_n = d_n * [q_n W + b > 0]       (recomputed, or from stored bits)
//             G   += q_n dm_n^T,  s += dm_n,     dq_n = W (h * dm_n)
//
// All three are matrix products with the pairs as rows; a tile of each stays in registers. With
// G = sum q_n (d_n M_n)^T the gradients are dW = G diag(h), db = h * s and dh_t = W_t . G_t + b_t s_t,
// so the hidden values themselves are never stored (DESIGN section 6).
#pragma once

#include "kernels.h"
#include "pair_dropout.h"
#include "simd.h"
#include "threads.h"

namespace attfm::ATTFM_TARGET {
namespace {

// Rows of a register tile, by the number of vectors across it: 24 accumulators of 32 registers, or 12 of 16.
constexpr int TILE_ROWS_2 = LANES == 16 ? 12 : 6;
constexpr int TILE_ROWS_1 = LANES == 16 ? 16 : 8;
constexpr int TILE_SMALL = LANES == 16 ? 4 : 2;
constexpr int ROW_PADDING = 16;  // rows that a last, partly filled tile may touch beyond the count

// acc[r][n] += sum over k of a[r * row_step + k * step] * b[k * ldb + n * LANES ...]
//
// Rows are reached from one base pointer for every four, hidden from the optimiser: left alone, GCC keeps a pointer
// for each row, runs out of registers and reloads them between the multiply-adds.
template <int ROWS, int WIDTH>
ATTFM_INLINE void multiply(const float* a, int64_t row_step, int64_t step, const float* b, int64_t ldb, int64_t depth,
                           Vec (&acc)[ROWS][WIDTH]) {
  constexpr int GROUPS = (ROWS + 3) / 4;
  const float* base[GROUPS];
#pragma GCC unroll 4
  for (int g = 0; g < GROUPS; ++g) base[g] = a + 4 * g * row_step;
  int64_t once = row_step, thrice = 3 * row_step;
  __asm__("" : "+r"(once), "+r"(thrice));
  for (int64_t k = 0; k < depth; ++k) {
    Vec w[WIDTH];
#pragma GCC unroll 4
    for (int n = 0; n < WIDTH; ++n) w[n] = load(b + n * LANES);
#pragma GCC unroll 4
    for (int g = 0; g < GROUPS; ++g) {
      __asm__("" : "+r"(base[g]));
#pragma GCC unroll 4
      for (int r = 4 * g; r < (4 * g + 4 < ROWS ? 4 * g + 4 : ROWS); ++r) {
        const int i = r - 4 * g;
        Vec x = broadcast(i == 0 ? base[g][0] : i == 1 ? base[g][once] : i == 2 ? base[g][2 * once] : base[g][thrice]);
#pragma GCC unroll 4
        for (int n = 0; n < WIDTH; ++n) acc[r][n] += x * w[n];
      }
      base[g] += step;
    }
    b += ldb;
  }
}
// The same where the rows lie side by side (row_step 1).
template <int ROWS, int WIDTH>
ATTFM_INLINE void multiply_columns(const float* a, int64_t step, const float* b, int64_t ldb, int64_t depth,
                                   Vec (&acc)[ROWS][WIDTH]) {
  for (int64_t k = 0; k < depth; ++k) {
    Vec w[WIDTH];
#pragma GCC unroll 4
    for (int n = 0; n < WIDTH; ++n) w[n] = load(b + n * LANES);
    __asm__("" : "+r"(a));
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      Vec x = broadcast(a[r]);
#pragma GCC unroll 4
      for (int n = 0; n < WIDTH; ++n) acc[r][n] += x * w[n];
    }
    a += step;
    b += ldb;
  }
}

// Call f(row, integral constant ROWS) for tiles that cover `count` rows.
template <int WIDTH, int ROWS>
struct Rows {};
template <int WIDTH, class F>
ATTFM_INLINE void for_row_tiles(int64_t count, F&& f) {
  constexpr int big = WIDTH == 2 ? TILE_ROWS_2 : TILE_ROWS_1;
  int64_t r = 0;
  for (; r + big <= count; r += big) f(r, Rows<WIDTH, big>{});
  if constexpr (big > 2 * TILE_SMALL) {
    for (; r + 2 * TILE_SMALL <= count; r += 2 * TILE_SMALL) f(r, Rows<WIDTH, 2 * TILE_SMALL>{});
  }
  for (; r < count; r += TILE_SMALL) f(r, Rows<WIDTH, TILE_SMALL>{});
}
// Call f(column, Rows<WIDTH, ...>) for panels of two vectors, then one, that cover `columns` (a multiple of LANES).
template <class F>
ATTFM_INLINE void for_panels(int64_t columns, F&& f) {
  int64_t c = 0;
  for (; c + 2 * LANES <= columns; c += 2 * LANES) f(c, Rows<2, 0>{});
  if (c < columns) f(c, Rows<1, 0>{});
}

// W packed in panels, padded with zeros; made once a call and shared by all threads.
struct Network {
  int64_t dim, attention_dim, padded_dim, padded_hidden;
  const float* W;      // panels over hidden units: [panel][dim][panel width]
  const float* back;   // panels over dim of W_lt h_t: [panel][attention_dim][panel width]
  const float *b, *h;  // padded

  static int64_t floats(int64_t dim, int64_t attention_dim) {
    int64_t hidden = round_up(attention_dim, LANES);
    return dim * hidden + attention_dim * round_up(dim, LANES) + 2 * hidden;
  }
  Network(const PoolTask& task, float* memory)
      : dim(task.dim),
        attention_dim(task.attention_dim),
        padded_dim(round_up(dim, LANES)),
        padded_hidden(round_up(attention_dim, LANES)) {
    if (attention_dim == 0) return;
    float* forward = memory;
    float* backward = forward + dim * padded_hidden;
    float* bias = backward + attention_dim * padded_dim;
    float* weights = bias + padded_hidden;
    const float *w = task.W, *h0 = task.h;
    const int64_t T = attention_dim, K = dim;
    for_panels(padded_hidden, [&](int64_t c, auto tile) {
      const int64_t width = width_of(tile) * LANES;
      for (int64_t l = 0; l < K; ++l)
        for (int64_t x = 0; x < width; ++x) forward[c * K + l * width + x] = c + x < T ? w[l * T + c + x] : 0.0f;
    });
    for_panels(padded_dim, [&](int64_t c, auto tile) {
      const int64_t width = width_of(tile) * LANES;
      for (int64_t t = 0; t < T; ++t)
        for (int64_t x = 0; x < width; ++x)
          backward[c * T + t * width + x] = c + x < K ? w[(c + x) * T + t] * h0[t] : 0.0f;
    });
    for (int64_t t = 0; t < padded_hidden; ++t) bias[t] = t < T ? task.b[t] : 0.0f;
    for (int64_t t = 0; t < padded_hidden; ++t) weights[t] = t < T ? h0[t] : 0.0f;
    W = forward, back = backward, b = bias, h = weights;
  }
  template <int WIDTH, int ROWS>
  static constexpr int width_of(Rows<WIDTH, ROWS>) {
    return WIDTH;
  }
};

// Pairs that are worked on at once: q and dm of a chunk should stay in L1, or in L2 where they are long.
ATTFM_INLINE int64_t chunk_pairs(int64_t padded_dim, int64_t padded_hidden) {
  const int64_t fit = 8192 / (padded_dim + padded_hidden);
  if (fit < 48 && padded_hidden == LANES) return TILE_ROWS_1;
  return larger(48, smaller(192, fit / 48 * 48));
}

template <int WIDTH>
ATTFM_INLINE void put_bits(uint8_t* bits, uint32_t (&set)[WIDTH]) {
  if constexpr (LANES == 16) {
    for (int n = 0; n < WIDTH; ++n) {
      uint16_t word = uint16_t(set[n]);
      memcpy(bits + 2 * n, &word, 2);
    }
  } else if constexpr (LANES == 8) {
    for (int n = 0; n < WIDTH; ++n) bits[n] = uint8_t(set[n]);
  } else {
    bits[0] = uint8_t(set[0] | (WIDTH == 2 ? set[WIDTH - 1] << 4 : 0));
  }
}
template <int WIDTH>
ATTFM_INLINE void get_bits(const uint8_t* bits, uint32_t (&set)[WIDTH]) {
  if constexpr (LANES == 16) {
    for (int n = 0; n < WIDTH; ++n) {
      uint16_t word;
      memcpy(&word, bits + 2 * n, 2);
      set[n] = word;
    }
  } else if constexpr (LANES == 8) {
    for (int n = 0; n < WIDTH; ++n) set[n] = bits[n];
  } else {
    for (int n = 0; n < WIDTH; ++n) set[n] = (bits[0] >> (4 * n)) & 15u;
  }
}

// The pairs of a block of rows as one list: pair n is pair n % pairs of row n / pairs.
struct Place {
  int64_t row, pair;
};

// Which entries of the pair vectors of a block of rows are kept; bits null: all.
struct Kept {
  const uint16_t* bits = nullptr;  // (rows * pairs, words)
  int64_t words = 0;
  float factor = 1.0f;
};

// q_n = v_i * v_j for `count` pairs from `at` on; v[row] are the field vectors of a row.
template <bool DROP>
ATTFM_INLINE Place pair_vectors(const float* const* v, const int32_t* first, const int32_t* second, int64_t pairs,
                                int64_t padded_dim, int64_t count, Place at, const Kept& kept, float* q) {
  while (count > 0) {
    const float* row = v[at.row];
    const int64_t stop = smaller(pairs, at.pair + count);
    count -= stop - at.pair;
    for (int64_t p = at.pair; p < stop; ++p) {
      const float *vi = row + first[p] * padded_dim, *vj = row + second[p] * padded_dim;
      for (int64_t l = 0; l < padded_dim; l += LANES) {
        Vec x = load(vi + l) * load(vj + l);
        if constexpr (DROP) {
          const uint16_t* bits = kept.bits + (at.row * pairs + p) * kept.words;
          x = keep_where(kept_lanes(bits, l), x * kept.factor);
        }
        store(q + l, x);
      }
      q += padded_dim;
    }
    at.pair = stop == pairs ? 0 : stop;
    at.row += stop == pairs;
  }
  return at;
}

// One tile of the forward product: adds h . relu(q W + b) of `WIDTH` vectors of hidden units to partial, lane by lane.
template <int ROWS, int WIDTH, bool KEEP_BITS>
__attribute__((noinline)) void logit_tile(const Network& net, int64_t c, const float* q, const float* w, int64_t used,
                                          float* partial, int64_t rows, uint8_t* bits) {
  Vec acc[ROWS][WIDTH];
#pragma GCC unroll 4
  for (int n = 0; n < WIDTH; ++n) {
    const Vec b = load(net.b + c + n * LANES);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) acc[i][n] = b;
  }
  multiply<ROWS, WIDTH>(q, net.padded_dim, 1, w, WIDTH * LANES, net.dim, acc);
  if constexpr (KEEP_BITS) {
    const int64_t bytes = bit_bytes(net.attention_dim);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
      uint32_t set[WIDTH];
#pragma GCC unroll 4
      for (int n = 0; n < WIDTH; ++n) set[n] = positive_bits(acc[i][n]);
      if (i < rows) put_bits<WIDTH>(bits + i * bytes, set);
    }
  }
  // Padding lanes must not turn an infinite q into NaN (inf * 0).
  const bool padded = used < WIDTH * LANES;
  const uint32_t last = padded ? (1u << (used - (WIDTH - 1) * LANES)) - 1 : 0;
  Vec h[WIDTH];
#pragma GCC unroll 4
  for (int n = 0; n < WIDTH; ++n) h[n] = load(net.h + c + n * LANES);
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i) {
    Vec total = c == 0 ? Vec{} : load(partial + i * LANES);
#pragma GCC unroll 4
    for (int n = 0; n < WIDTH; ++n) {
      Vec x = relu(acc[i][n]);
      if (n == WIDTH - 1 && padded) x = keep_where(last, x);
      total += x * h[n];
    }
    store(partial + i * LANES, total);
  }
}

// e[n] = h . relu(q_n W + b) for n < count; e has room up to a multiple of LANES. q: (count + ROW_PADDING, padded_dim)
// with readable padding rows. partial: (count + ROW_PADDING + LANES) vectors. bits: null, or count times bit_bytes.
template <bool KEEP_BITS>
void attention_logits(const Network& net, const float* q, int64_t count, float* partial, float* e, uint8_t* bits) {
  const int64_t bytes = bit_bytes(net.attention_dim);
  for_panels(net.padded_hidden, [&](int64_t c, auto panel) {
    constexpr int WIDTH = Network::width_of(panel);
    for_row_tiles<WIDTH>(count, [&]<int ROWS>(int64_t r, Rows<WIDTH, ROWS>) {
      logit_tile<ROWS, WIDTH, KEEP_BITS>(net, c, q + r * net.padded_dim, net.W + c * net.dim, net.attention_dim - c,
                                         partial + r * LANES, count - r,
                                         KEEP_BITS ? bits + r * bytes + c / 8 : nullptr);
    });
  });
  if constexpr (KEEP_BITS)  // a pair's bytes are words of 16 bits: narrow vectors leave the last of an odd number alone
    for (int64_t n = 0, last = (net.padded_hidden + 7) / 8; last < bytes && n < count; ++n) bits[n * bytes + last] = 0;
  for (int64_t n = 0; n < count; n += LANES) store(e + n, sum_each(partial + n * LANES));
}

// dm = d * [q W + b > 0] for one tile, added to total too. A function of its own, see back_tile.
template <int ROWS, int WIDTH>
__attribute__((noinline)) void sign_tile(const Network& net, int64_t c, const float* q, const float* w, const float* d,
                                         int64_t rows, float* dm, Vec* total) {
  Vec acc[ROWS][WIDTH];
#pragma GCC unroll 4
  for (int n = 0; n < WIDTH; ++n) {
    const Vec b = load(net.b + c + n * LANES);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) acc[i][n] = b;
  }
  multiply<ROWS, WIDTH>(q, net.padded_dim, 1, w, WIDTH * LANES, net.dim, acc);
  Vec sums[WIDTH];
#pragma GCC unroll 4
  for (int n = 0; n < WIDTH; ++n) sums[n] = total[n];
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i) {
    const Vec dr = broadcast(d[i]);
#pragma GCC unroll 4
    for (int n = 0; n < WIDTH; ++n) {
      const Vec x = keep_positive(acc[i][n], dr);
      if (i < rows) sums[n] += x;
      store(dm + i * net.padded_hidden + n * LANES, x);
    }
  }
#pragma GCC unroll 4
  for (int n = 0; n < WIDTH; ++n) total[n] = sums[n];
}

// dq = dm (W diag(h))^T for one tile. A function of its own: inlined, its pointers no longer fit the registers.
template <int ROWS, int WIDTH>
__attribute__((noinline)) void back_tile(const float* dm, int64_t dm_step, const float* w, int64_t depth, float* dq,
                                         int64_t dq_step) {
  Vec acc[ROWS][WIDTH] = {};
  multiply<ROWS, WIDTH>(dm, dm_step, 1, w, WIDTH * LANES, depth, acc);
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
    for (int n = 0; n < WIDTH; ++n) store(dq + i * dq_step + n * LANES, acc[i][n]);
}

// From d (count): adds to G (padded_dim, padded_hidden) and s (padded_hidden), and writes dq over q.
// dm: (count + ROW_PADDING, padded_hidden).
void attention_gradients(const Network& net, float* q, const float* d, int64_t count, const uint8_t* bits, float* dm,
                         float* G, float* s) {
  const int64_t K = net.padded_dim, T = net.padded_hidden, bytes = bit_bytes(net.attention_dim);
  for_panels(T, [&](int64_t c, auto panel) {
    constexpr int WIDTH = Network::width_of(panel);
    Vec total[WIDTH] = {};
    if (bits != nullptr) {
      for (int64_t r = 0; r < count; ++r) {
        uint32_t set[WIDTH];
        get_bits<WIDTH>(bits + r * bytes + c / 8, set);
        Vec dr = broadcast(d[r]);
#pragma GCC unroll 4
        for (int n = 0; n < WIDTH; ++n) {
          Vec x = keep_where(set[n], dr);
          total[n] += x;
          store(dm + r * T + c + n * LANES, x);
        }
      }
    } else {
      const float* w = net.W + c * net.dim;
      for_row_tiles<WIDTH>(count, [&]<int ROWS>(int64_t r, Rows<WIDTH, ROWS>) {
        sign_tile<ROWS, WIDTH>(net, c, q + r * K, w, d + r, count - r, dm + r * T + c, total);
      });
    }
#pragma GCC unroll 4
    for (int n = 0; n < WIDTH; ++n) store(s + c + n * LANES, load(s + c + n * LANES) + total[n]);
  });
  // G += q^T dm
  for_panels(T, [&](int64_t c, auto panel) {
    constexpr int WIDTH = Network::width_of(panel);
    for_row_tiles<WIDTH>(net.dim, [&]<int ROWS>(int64_t l, Rows<WIDTH, ROWS>) {
      // Summed chunk by chunk: one long running sum would lose digits.
      Vec acc[ROWS][WIDTH] = {};
      multiply_columns<ROWS, WIDTH>(q + l, K, dm + c, T, count, acc);
#pragma GCC unroll 16
      for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 4
        for (int n = 0; n < WIDTH; ++n) {
          float* to = G + (l + i) * T + c + n * LANES;
          store(to, load(to) + acc[i][n]);
        }
      }
    });
  });
  // dq = dm (W diag(h))^T
  for_panels(K, [&](int64_t c, auto panel) {
    constexpr int WIDTH = Network::width_of(panel);
    const float* w = net.back + c * net.attention_dim;
    for_row_tiles<WIDTH>(count, [&]<int ROWS>(int64_t r, Rows<WIDTH, ROWS>) {
      back_tile<ROWS, WIDTH>(dm + r * T, T, w, net.attention_dim, q + r * K + c, K);
    });
  });
}

// The parameter gradients of one thread; `finish` adds those of all threads in order.
struct NetworkGradient {
  static int64_t floats(int64_t dim, int64_t attention_dim) {
    const int64_t T = round_up(attention_dim, LANES);
    return (round_up(dim, LANES) + ROW_PADDING) * T + T;
  }
};
void finish_network(const PoolTask& task, const Network& net, float* parts, int64_t stride, int count) {
  const int64_t K = net.dim, T = net.attention_dim, P = net.padded_hidden;
  const int64_t s_at = (net.padded_dim + ROW_PADDING) * P;
  for (int part = 1; part < count; ++part) {
    const float* other = parts + part * stride;
    for (int64_t i = 0; i < K * P; ++i) parts[i] += other[i];
    for (int64_t t = 0; t < P; ++t) parts[s_at + t] += other[s_at + t];
  }
  const float *G = parts, *s = parts + s_at;
  for (int64_t t = 0; t < T; ++t) task.grad_b[t] = task.h[t] * s[t];
  for (int64_t l = 0; l < K; ++l)
    for (int64_t t = 0; t < T; ++t) task.grad_W[l * T + t] = task.h[t] * G[l * P + t];
  // The terms of dh cancel: double keeps what digits G has.
  for (int64_t t = 0; t < T; ++t) {
    double dh = double(task.b[t]) * s[t];
    for (int64_t l = 0; l < K; ++l) dh += double(task.W[l * T + t]) * G[l * P + t];
    task.grad_h[t] = float(dh);
  }
}

}  // namespace
}  // namespace attfm::ATTFM_TARGET
