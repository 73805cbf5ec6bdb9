// Vectors of float32 as wide as the processor's: read, written, and what is computed with them.

#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

// What is called for every few vectors: by a call they would go through memory.
#define SGT_INLINE inline __attribute__((always_inline))

namespace {

#ifdef __AVX512F__
constexpr int kWidth = 16;
#else
constexpr int kWidth = 8;
#endif

typedef float Floats __attribute__((vector_size(4 * kWidth)));
typedef int32_t Ints __attribute__((vector_size(4 * kWidth)));
typedef uint16_t Halves __attribute__((vector_size(2 * kWidth)));

struct Bfloat16 {
  uint16_t bits;
};

inline Floats splat(float x) { return x - Floats{}; }

// x > y ? x : y
inline Floats max_of(Floats x, Floats y) {
#ifdef __AVX512F__
  return _mm512_max_ps(x, y);
#else
  return _mm256_max_ps(x, y);
#endif
}

inline Floats load(const float* from) {
  Floats x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

inline Ints load(const int32_t* from) {
  Ints x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

inline Floats load(const Bfloat16* from) {
  Halves bits;
  std::memcpy(&bits, from, sizeof bits);
  return (Floats)(__builtin_convertvector(bits, Ints) << 16);
}

inline Floats load(const _Float16* from) {
#ifdef __AVX512F__
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#else
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#endif
}

inline void store(Floats x, float* to) { std::memcpy(to, &x, sizeof x); }
inline void store(Ints x, int32_t* to) { std::memcpy(to, &x, sizeof x); }

inline void store(Floats x, Bfloat16* to) {
  const Ints bits = (Ints)x;
  const Ints rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, to even
  const Halves result = __builtin_convertvector(x == x ? rounded : 0x7fc0, Halves);
  std::memcpy(to, &result, sizeof result);
}

inline void store(Floats x, _Float16* to) {
#ifdef __AVX512F__
  const __m256i bits = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
#else
  const __m128i bits = _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
#endif
  std::memcpy(to, &bits, sizeof bits);
}

// Copy 0 <= size < kWidth numbers, by pieces whose sizes the compiler knows.
template <typename T>
inline void copy_part(const T* from, int64_t size, T* to) {
  for (int64_t piece = kWidth / 2; piece > 0; piece /= 2)
    if (size & piece) {
      std::memcpy(to, from, piece * sizeof(T));
      from += piece;
      to += piece;
    }
}

// The first `size` numbers, and `fill` in the others' place.
template <typename T>
inline Floats load_part(const T* from, int64_t size, float fill) {
  T part[kWidth];
  store(splat(fill), part);
  copy_part(from, size, part);
  return load(part);
}

template <typename T>
inline void store_part(Floats x, int64_t size, T* to) {
  T part[kWidth];
  store(x, part);
  copy_part(part, size, to);
}

#ifdef __AVX512F__
inline Floats load_part(const float* from, int64_t size, float fill) {
  return _mm512_mask_loadu_ps(splat(fill), static_cast<__mmask16>((1 << size) - 1), from);
}

inline void store_part(Floats x, int64_t size, float* to) {
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1 << size) - 1), x);
}
#else
inline Ints first_of(int64_t size) {
  return Ints{0, 1, 2, 3, 4, 5, 6, 7} < static_cast<int32_t>(size);
}

inline Floats load_part(const float* from, int64_t size, float fill) {
  const Ints is_first = first_of(size);
  const Floats x = _mm256_maskload_ps(from, (__m256i)is_first);
  return is_first ? x : splat(fill);
}

inline void store_part(Floats x, int64_t size, float* to) {
  _mm256_maskstore_ps(to, (__m256i)first_of(size), x);
}
#endif

// Call `f(i, size)` for the vectors of some numbers: `size` is the constant kWidth, or what is left.
template <typename F>
inline void for_vectors(int64_t begin, int64_t end, F f) {
  int64_t i = begin;
  for (; i + kWidth <= end; i += kWidth) f(i, static_cast<int64_t>(kWidth));
  if (i < end) f(i, end - i);
}

template <typename T>
inline Floats load_some(const T* from, int64_t size, float fill) {
  return size == kWidth ? load(from) : load_part(from, size, fill);
}

template <typename T>
inline void store_some(Floats x, int64_t size, T* to) {
  if (size == kWidth)
    store(x, to);
  else
    store_part(x, size, to);
}

// Of every chunk of kChunk numbers of x, and then of y, the half that begins at kFirst.
template <int kChunk, int kFirst, int... i>
inline Floats halves_of(Floats x, Floats y, std::integer_sequence<int, i...>) {
  constexpr int kHalf = kChunk / 2, kChunks = kWidth / kChunk;
  return __builtin_shuffle(x, y,
                           Ints{(i / kHalf / kChunks * kWidth +
                                 i / kHalf % kChunks * kChunk + i % kHalf + kFirst)...});
}

// The numbers of each of kNum vectors, a power of two, combined by `f` of two vectors: those of
// vector k are number k of the result.
template <int kNum = kWidth, typename F>
inline Floats fold(const Floats* vectors, F f) {
  constexpr auto all = std::make_integer_sequence<int, kWidth>();
  if constexpr (kNum == 1) {
    return *vectors;
  } else {
    const Floats x = fold<kNum / 2>(vectors, f), y = fold<kNum / 2>(vectors + kNum / 2, f);
    constexpr int kChunk = 2 * kWidth / kNum;
    return f(halves_of<kChunk, 0>(x, y, all), halves_of<kChunk, kChunk / 2>(x, y, all));
  }
}

// exp(x) for x <= 0, to about one unit in the last place; 0 below -87, where float32 ends.
// x = n log(2) + r with |r| <= log(2) / 2, and exp(r) by a polynomial that is right to 4e-9.
SGT_INLINE Floats exp_of(Floats x) {
  constexpr float kSmallest = -87.0f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const Floats shifted = x * 1.44269504088896341f + kRound;
  const Floats n = shifted - kRound;
  const Floats r = (x - n * 0.693145751953125f) - n * 1.42860682030941723e-6f;  // log(2) in two
  Floats series = splat(0.001381454f);
  series = series * r + 0.008368745f;
  series = series * r + 0.04166839f;
  series = series * r + 0.16666521f;
  series = series * r + 0.49999994f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
#ifdef __AVX512F__
  const Floats result = _mm512_scalef_ps(series, n);
#else
  // n is in the low bits of `shifted`; into the exponent with it.
  const Floats result = series * (Floats)(((Ints)shifted + 127) << 23);
#endif
  return x < kSmallest ? Floats{} : result;
}

// log(x) of normal numbers x > 0, to about one unit in the last place; nan stays.
// x = 2^n f with f from sqrt(1/2) to sqrt(2), and log(f) = 2 artanh(s) by its series.
SGT_INLINE Floats log_of(Floats x) {
  const Ints bits = (Ints)x;
  const Ints n = (bits - 0x3f3504f3) >> 23;  // the bits of sqrt(1/2)
  const Floats f = (Floats)(bits - (n << 23));
  const Floats s = (f - 1.0f) / (f + 1.0f), s2 = s * s;
  Floats series = splat(2.0f / 9);
  series = series * s2 + 2.0f / 7;
  series = series * s2 + 2.0f / 5;
  series = series * s2 + 2.0f / 3;
  series = series * s2 * s;
  const Floats exponent = __builtin_convertvector(n, Floats);
  const Floats small = exponent * 1.42860682030941723e-6f + series + 2.0f * s;
  return x == x ? exponent * 0.693145751953125f + small : x;
}

}  // namespace
