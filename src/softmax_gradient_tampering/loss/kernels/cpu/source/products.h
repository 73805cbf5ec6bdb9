// Products of matrices of float32, in tiles that are summed in registers.
//
// The matrix on the right is copied, a part that stays in the cache at a time. Every number is
// summed in the same order wherever tiles begin: results do not depend on the number of threads.

#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "transpose.h"
#include "vectors.h"

extern "C" {

// As Matrix of native_library.py; strides in numbers.
struct Matrix {
  float* at;
  int64_t num_rows, num_columns, row_stride, column_stride;
};

}  // extern "C"

namespace {

constexpr int kTileRows = 6, kTileVectors = kWidth / 4;  // sums that fit in the registers
constexpr int64_t kTileColumns = kTileVectors * kWidth;
constexpr int64_t kDepth = 256, kColumns = 256;  // of the part on the right: 256 KiB

// A part of the matrix on the right, as panels of kTileColumns columns: the numbers of a row of a
// panel are adjacent. Columns beyond the last are zeros.
class Panels {
 public:
  Panels() : numbers_(kDepth * kColumns) {}

  void copy(const Matrix& right, int64_t row, int64_t column, int64_t depth, int64_t columns) {
    const float* from = right.at + row * right.row_stride + column * right.column_stride;
    for (int64_t j = 0; j < columns; j += kTileColumns)
      copy_panel(from + j * right.column_stride, right, depth, std::min(kTileColumns, columns - j),
                 numbers_.data() + j * kDepth);
  }

  const float* at(int64_t column) const { return numbers_.data() + column * kDepth; }

 private:
  static void copy_panel(const float* from, const Matrix& right, int64_t depth, int64_t columns,
                         float* to) {
    const int64_t down = right.row_stride, across = right.column_stride;
    if (across == 1) {
      for (int64_t k = 0; k < depth; ++k)
        for (int64_t j = 0; j < kTileColumns; j += kWidth)
          store(load_some(from + k * down + j, std::clamp<int64_t>(columns - j, 0, kWidth), 0.0f),
                to + k * kTileColumns + j);
      return;
    }
    const bool is_transposed = down == 1 && columns == kTileColumns;
    const int64_t whole = is_transposed ? depth / kWidth * kWidth : 0;
    for (int64_t k = 0; k < whole; k += kWidth)
      for (int64_t j = 0; j < kTileColumns; j += kWidth) {
        Floats vectors[kWidth];
        load_columns<kWidth>(from + k + j * across, across, vectors);
        for (int i = 0; i < kWidth; ++i) store(vectors[i], to + (k + i) * kTileColumns + j);
      }
    for (int64_t k = whole; k < depth; ++k)
      for (int64_t j = 0; j < kTileColumns; ++j)
        to[k * kTileColumns + j] = j < columns ? from[k * down + j * across] : 0.0f;
  }

  std::vector<float> numbers_;
};

// kRows rows of a panel's columns: the sum over its depth, or what was there and the sum.
template <int kRows>
SGT_INLINE void multiply_tile(const float* left, int64_t down, int64_t across, const float* panel,
                              int64_t depth, bool adds, int64_t columns, float* to,
                              int64_t to_stride) {
  Floats sums[kRows][kTileVectors] = {};
  for (int64_t k = 0; k < depth; ++k, panel += kTileColumns) {
    Floats right[kTileVectors];
    for (int v = 0; v < kTileVectors; ++v) right[v] = load(panel + v * kWidth);
    for (int i = 0; i < kRows; ++i) {
      const Floats factor = splat(left[i * down + k * across]);
      for (int v = 0; v < kTileVectors; ++v) sums[i][v] += factor * right[v];
    }
  }
  for (int i = 0; i < kRows; ++i)
    for (int v = 0; v < kTileVectors; ++v) {
      float* place = to + i * to_stride + v * kWidth;
      const int64_t size = std::clamp<int64_t>(columns - v * kWidth, 0, kWidth);
      if (adds) sums[i][v] += load_some(place, size, 0.0f);
      store_some(sums[i][v], size, place);
    }
}

// The numbers of kTileRows rows of the matrix on the left, those of a column adjacent.
class LeftTile {
 public:
  LeftTile(const float* from, int64_t column_stride, int64_t depth) {
    for (int64_t k = 0; k < depth; ++k)
      std::memcpy(numbers_ + k * kTileRows, from + k * column_stride, kTileRows * sizeof(float));
  }

  const float* numbers() const { return numbers_; }

 private:
  float numbers_[kDepth * kTileRows];
};

// Some rows of the product with some columns of the matrix on the right, a part of its depth.
template <int kRows>
void multiply_rows(const Matrix& left, int64_t row, int64_t k, const Panels& panels, int64_t depth,
                   bool adds, int64_t columns, float* to, int64_t to_stride) {
  const int64_t down = left.row_stride, across = left.column_stride;
  const float* from = left.at + row * down + k * across;
  const auto for_panels = [&](const float* from, auto down, auto across) {
    for (int64_t j = 0; j < columns; j += kTileColumns)
      multiply_tile<kRows>(from, down, across, panels.at(j), depth, adds, columns - j, to + j,
                           to_stride);
  };
  using One = std::integral_constant<int64_t, 1>;
  if (across == 1)
    for_panels(from, down, One());
  else if (down == 1 && kRows == kTileRows)  // far apart, every number would cost a page's look-up
    for_panels(LeftTile(from, across, depth).numbers(), One(),
               std::integral_constant<int64_t, kTileRows>());
  else
    for_panels(from, down, across);
}

// The product, or what was there and the product.
inline void multiply(const Matrix& left, const Matrix& right, bool adds, const Matrix& to) {
  static thread_local Panels panels;
  for (int64_t column = 0; column < to.num_columns; column += kColumns)
    for (int64_t k = 0; k == 0 || k < right.num_rows; k += kDepth) {  // of no depth: zeros
      const int64_t columns = std::min(kColumns, to.num_columns - column);
      const int64_t depth = std::min(kDepth, right.num_rows - k);
      panels.copy(right, k, column, depth, columns);
      const auto from_row = [&](int64_t row, auto multiply_some) {
        multiply_some(left, row, k, panels, depth, adds || k > 0, columns,
                      to.at + row * to.row_stride + column, to.row_stride);
      };
      int64_t row = 0;
      for (; row + kTileRows <= to.num_rows; row += kTileRows)
        from_row(row, multiply_rows<kTileRows>);
      for (; row < to.num_rows; ++row) from_row(row, multiply_rows<1>);
    }
}

inline Matrix rows_of(const Matrix& whole, int64_t begin, int64_t end) {
  return {whole.at + begin * whole.row_stride, end - begin, whole.num_columns, whole.row_stride,
          whole.column_stride};
}

inline Matrix columns_of(const Matrix& whole, int64_t begin, int64_t end) {
  return {whole.at + begin * whole.column_stride, whole.num_rows, end - begin, whole.row_stride,
          whole.column_stride};
}

// Into how many parts the columns are cut where there are `parts` in all: every part copies for
// itself what it takes of both matrices, which takes some part of a tile's time.
inline int64_t num_column_parts(int64_t row_tiles, int64_t column_tiles, int64_t parts) {
  constexpr double kOfLeft = 0.2, kOfRight = 0.7;
  int64_t best = 1;
  double least = INFINITY;
  for (int64_t count = 1; count <= parts; ++count) {
    if (parts % count) continue;
    const double columns = (column_tiles + count - 1) / count;
    const double rows = (row_tiles * count + parts - 1) / parts;
    const double time = rows * columns + kOfLeft * rows + kOfRight * columns;
    if (time < least) least = time, best = count;
  }
  return best;
}

// One of `parts` parts of the product, in whole tiles.
inline void multiply_part(const Matrix& left, const Matrix& right, bool adds, const Matrix& to,
                          int64_t part, int64_t parts) {
  const int64_t row_tiles = (to.num_rows + kTileRows - 1) / kTileRows;
  const int64_t column_tiles = (to.num_columns + kTileColumns - 1) / kTileColumns;
  const int64_t across = num_column_parts(row_tiles, column_tiles, parts), down = parts / across;
  const auto edge = [](int64_t tiles, int64_t part, int64_t parts, int64_t size, int64_t end) {
    return std::min(tiles * part / parts * size, end);
  };
  const int64_t i = part / across, j = part % across;
  const int64_t top = edge(row_tiles, i, down, kTileRows, to.num_rows);
  const int64_t bottom = edge(row_tiles, i + 1, down, kTileRows, to.num_rows);
  const int64_t begin = edge(column_tiles, j, across, kTileColumns, to.num_columns);
  const int64_t end = edge(column_tiles, j + 1, across, kTileColumns, to.num_columns);
  multiply(rows_of(left, top, bottom), columns_of(right, begin, end), adds,
           columns_of(rows_of(to, top, bottom), begin, end));
}

}  // namespace
