// Rows of adjacent classes into vectors of one class each, and back.

#pragma once

#include "vectors.h"

namespace {

// Sources of a shuffle of two vectors: of their chunks of kChunk numbers the lower halves,
// interleaved.
template <int kChunk, int... i>
constexpr Ints interleaved(std::integer_sequence<int, i...>) {
  return Ints{(i / kChunk * kChunk + i % kChunk / 2 + i % 2 * kWidth)...};
}

// In every chunk of the vectors, number j of vector k becomes number k of vector j.
template <int kChunk>
inline void transpose(Floats (&vectors)[kChunk]) {
  constexpr Ints kLow = interleaved<kChunk>(std::make_integer_sequence<int, kWidth>());
  constexpr Ints kHigh = kLow + kChunk / 2;
  for (int stage = kChunk; stage > 1; stage /= 2) {
    Floats result[kChunk];
    for (int k = 0; k < kChunk / 2; ++k) {
      result[2 * k] = __builtin_shuffle(vectors[k], vectors[k + kChunk / 2], kLow);
      result[2 * k + 1] = __builtin_shuffle(vectors[k], vectors[k + kChunk / 2], kHigh);
    }
    std::memcpy(vectors, result, sizeof result);
  }
}

// A vector of chunks of kChunk numbers each, `stride` apart in memory.
template <int kChunk, typename T>
inline Floats load_chunks(const T* from, int64_t stride) {
  T numbers[kWidth];
  for (int i = 0; i < kWidth / kChunk; ++i)
    std::memcpy(numbers + i * kChunk, from + i * stride, kChunk * sizeof(T));
  return load(numbers);
}

// As above, in the processor's words: through memory the vector would wait for the chunks.
template <int kChunk>
inline Floats load_chunks(const float* from, int64_t stride) {
  if constexpr (kChunk == kWidth) return load(from);
#ifdef __AVX512F__
  if constexpr (kChunk == 8)
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(from)),
                              _mm256_loadu_ps(from + stride), 1);
  const __m256 low = _mm256_loadu2_m128(from + stride, from);
  const __m256 high = _mm256_loadu2_m128(from + 3 * stride, from + 2 * stride);
  return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
#else
  return _mm256_loadu2_m128(from + stride, from);
#endif
}

// kWidth rows into kChunk vectors; vector k begins as the rows k, k + kChunk, and so on.
template <int kChunk, typename T>
inline void load_columns(const T* rows, int64_t stride, Floats (&vectors)[kChunk]) {
  for (int k = 0; k < kChunk; ++k)
    vectors[k] = load_chunks<kChunk>(rows + k * stride, kChunk * stride);
  transpose(vectors);
}

// The other way, the first `size` classes of `num_rows` rows.
template <int kChunk, typename T>
inline void store_columns(Floats (&vectors)[kChunk], int64_t num_rows, int64_t size, T* rows,
                          int64_t stride) {
  transpose(vectors);
  if (kChunk == kWidth && size == kWidth && num_rows == kWidth) {
    for (int k = 0; k < kChunk; ++k) store(vectors[k], rows + k * stride);
    return;
  }
  T numbers[kChunk][kWidth];
  for (int k = 0; k < kChunk; ++k) store(vectors[k], numbers[k]);
  for (int i = 0; i < kWidth && i < num_rows; ++i) {
    const T* from = numbers[i % kChunk] + i / kChunk * kChunk;
    if (size == kChunk)
      std::memcpy(rows + i * stride, from, kChunk * sizeof(T));
    else
      copy_part(from, size, rows + i * stride);
  }
}

}  // namespace
