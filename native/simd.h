// Vectors of LANES floats, written once for every instruction set.
//
// Every file that includes this one is compiled several times, with ATTFM_TARGET naming the namespace and
// ATTFM_LANES the width. All names have internal linkage and no standard library template is used here:
// otherwise the linker could keep the AVX-512 copy of a shared inline function for every machine.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__) || defined(__SSE2__)
#include <immintrin.h>
#endif

namespace attfm::ATTFM_TARGET {
namespace {

constexpr int LANES = ATTFM_LANES;
typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef int32_t IntVec __attribute__((vector_size(4 * LANES)));

#define ATTFM_INLINE inline __attribute__((always_inline))

ATTFM_INLINE Vec load(const float* p) {
  Vec v;
  memcpy(&v, p, sizeof v);
  return v;
}
ATTFM_INLINE void store(float* p, Vec v) { memcpy(p, &v, sizeof v); }
ATTFM_INLINE Vec broadcast(float x) { return x - Vec{}; }
ATTFM_INLINE IntVec broadcast(int32_t x) { return x - IntVec{}; }

// max(0, x) that lets NaN through, as torch.relu does (the order of the operands matters).
ATTFM_INLINE Vec relu(Vec x) {
#if ATTFM_LANES == 16
  return (Vec)_mm512_max_ps(_mm512_setzero_ps(), (__m512)x);
#elif ATTFM_LANES == 8
  return (Vec)_mm256_max_ps(_mm256_setzero_ps(), (__m256)x);
#elif defined(__SSE2__)
  return (Vec)_mm_max_ps(_mm_setzero_ps(), (__m128)x);
#else
  return Vec{} > x ? Vec{} : x;
#endif
}

// One bit per lane: not (x <= 0), which is torch's rule for the gradient of relu (a NaN passes it on).
ATTFM_INLINE uint32_t positive_bits(Vec x) {
#if ATTFM_LANES == 16
  return _mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_NLE_UQ);
#elif ATTFM_LANES == 8
  return _mm256_movemask_ps(_mm256_cmp_ps((__m256)x, _mm256_setzero_ps(), _CMP_NLE_UQ));
#elif defined(__SSE2__)
  return _mm_movemask_ps(_mm_cmpnle_ps((__m128)x, _mm_setzero_ps()));
#else
  uint32_t bits = 0;
  for (int lane = 0; lane < LANES; ++lane) bits |= uint32_t(!(x[lane] <= 0)) << lane;
  return bits;
#endif
}

// One bit per lane of the result of a comparison.
ATTFM_INLINE uint32_t true_bits(IntVec x) {
#if ATTFM_LANES == 16
  return _mm512_movepi32_mask((__m512i)x);
#elif ATTFM_LANES == 8
  return _mm256_movemask_ps((__m256)x);
#elif defined(__SSE2__)
  return _mm_movemask_ps((__m128)x);
#else
  uint32_t bits = 0;
  for (int lane = 0; lane < LANES; ++lane) bits |= uint32_t(x[lane] != 0) << lane;
  return bits;
#endif
}

// x where the lane's bit is set, else 0.
ATTFM_INLINE Vec keep_where(uint32_t bits, Vec x) {
#if ATTFM_LANES == 16
  return (Vec)_mm512_maskz_mov_ps((__mmask16)bits, (__m512)x);
#else
  IntVec lane_bit;
  for (int lane = 0; lane < LANES; ++lane) lane_bit[lane] = 1 << lane;
  return (broadcast((int32_t)bits) & lane_bit) != 0 ? x : Vec{};
#endif
}
ATTFM_INLINE Vec keep_positive(Vec sign, Vec x) {
#if ATTFM_LANES == 16
  return (Vec)_mm512_maskz_mov_ps(_mm512_cmp_ps_mask((__m512)sign, _mm512_setzero_ps(), _CMP_NLE_UQ), (__m512)x);
#else
  return sign <= 0 ? Vec{} : x;
#endif
}

// Sums of neighbouring lanes: the first half of the result comes from a, the second from b.
ATTFM_INLINE Vec add_neighbours(Vec a, Vec b) {
#if ATTFM_LANES == 16
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
         __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#elif ATTFM_LANES == 8
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14) +
         __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#else
  return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
}

// Lane i of the result is the sum of the lanes of v[i]: one tree for LANES sums.
template <int COUNT>
ATTFM_INLINE Vec add_up(const Vec* v) {
  if constexpr (COUNT == 1) {
    return v[0];
  } else {
    return add_neighbours(add_up<COUNT / 2>(v), add_up<COUNT / 2>(v + COUNT / 2));
  }
}
ATTFM_INLINE Vec sum_each(const float* vectors) {
  Vec v[LANES];
  for (int i = 0; i < LANES; ++i) v[i] = load(vectors + i * LANES);
  return add_up<LANES>(v);
}
ATTFM_INLINE float sum(Vec v) {
  float total = 0;
  for (int lane = 0; lane < LANES; ++lane) total += v[lane];
  return total;
}

// e^x for x <= 0 (also right up to 88); relative error below 2e-7; NaN stays NaN, below -87 the result is 0.
ATTFM_INLINE Vec exponential(Vec x) {
  Vec y = x < -87.3f ? broadcast(-87.3f) : x;
  const Vec shift = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to the nearest integer
  Vec n = (y * 1.44269504088896341f + shift) - shift;
  Vec r = y - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  Vec p = broadcast(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  IntVec exponent = (__builtin_convertvector(n, IntVec) + 127) << 23;
  Vec power;
  memcpy(&power, &exponent, sizeof power);
  Vec result = p * power;
  return x < -87.3f ? Vec{} : result;
}

ATTFM_INLINE int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
ATTFM_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
ATTFM_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// The rows that a part of the fixed partition owns: the same for the same number of parts.
struct Range {
  int64_t start, stop;
};
ATTFM_INLINE Range share(int64_t count, int part, int parts) {
  return {count * part / parts, count * (part + 1) / parts};
}

}  // namespace
}  // namespace attfm::ATTFM_TARGET
