// Blocks of positions, and the tile of float32 numbers that a block is copied into and out of.

#pragma once

#include <algorithm>
#include <memory>

#include "lanes.h"
#include "problem.h"
#include "transpose.h"
#include "vectors.h"

namespace {

// Positions of some whole images, or of a part of one.
struct Block {
  int64_t image, num_images, position, num_positions;
  int64_t i;  // of all positions the first
  int64_t num_lanes() const { return num_images * num_positions; }
};

// How images are cut into blocks, whatever the number of threads: several images a block, or an
// image into equal parts.
class Cutting {
 public:
  Cutting(const Problem& problem, bool is_copied)
      : num_images_(problem.num_images), num_positions_(problem.num_positions) {
    // A tile should stay in the nearest cache, and each class of it be long enough for memory;
    // where classes are many, it stays in the next cache. What is not copied has only to be
    // enough blocks for all threads.
    constexpr int64_t kEnough = 128, kNextCache = 131072;
    const int64_t numbers = is_copied ? 8192 : 32768;
    const int64_t wanted = std::max(numbers / problem.num_classes,
                                    std::min(kEnough, kNextCache / problem.num_classes));
    const int64_t lanes = std::clamp<int64_t>(wanted / kGroup * kGroup, kGroup, kMostLanes);
    images_ = is_copied ? std::clamp<int64_t>(lanes / num_positions_, 1, num_images_) : 1;
    const int64_t parts = (num_positions_ + lanes - 1) / lanes;
    positions_ = parts == 1 ? num_positions_ : whole_groups((num_positions_ + parts - 1) / parts);
    parts_ = (num_positions_ + positions_ - 1) / positions_;
  }

  int64_t count() const { return (num_images_ + images_ - 1) / images_ * parts_; }
  int64_t most_lanes() const { return images_ * positions_; }

  Block at(int64_t index) const {
    Block block;
    block.image = index / parts_ * images_;
    block.num_images = std::min(images_, num_images_ - block.image);
    block.position = index % parts_ * positions_;
    block.num_positions = std::min(positions_, num_positions_ - block.position);
    block.i = block.image * num_positions_ + block.position;
    return block;
  }

 private:
  int64_t num_images_, num_positions_;
  int64_t images_, parts_, positions_;  // of a block: images, or positions of an image's parts
};

// The numbers of some adjacent lanes: a class's are adjacent, and classes `stride` apart.
template <typename T>
struct Strip {
  T* at(int64_t c) const { return first + c * stride; }

  T* first;
  int64_t stride;
};

// Float32 numbers, classes x lanes.
class Tile {
 public:
  // There is room for a vector beyond lanes and classes. It also keeps the pitch from powers of
  // two, which would put all classes of a lane into the same few places of a cache.
  Tile(int64_t num_classes, int64_t num_lanes)
      : pitch_(whole_groups(num_lanes) + kWidth),
        room_(new float[(num_classes + kWidth) * pitch_ + kLine]) {
    const uintptr_t line = kLine * sizeof(float), at = reinterpret_cast<uintptr_t>(room_.get());
    values_ = reinterpret_cast<float*>((at + line - 1) / line * line);
  }

  float* at(int64_t c, int64_t lane) const { return values_ + c * pitch_ + lane; }
  Strip<float> from(int64_t lane) const { return {values_ + lane, pitch_}; }

 private:
  static constexpr int64_t kLine = 16;
  int64_t pitch_;
  std::unique_ptr<float[]> room_;
  float* values_;
};

// Numbers in memory, images x classes x positions: in planes of adjacent positions, or in rows of
// adjacent classes, where an image is one position.
template <typename T>
struct Array {
  // Contiguous ones of a problem's shape.
  Array(T* first, const Problem& problem)
      : first(first),
        num_images(problem.num_images),
        num_classes(problem.num_classes),
        image_stride(problem.num_classes * problem.num_positions),
        class_stride(problem.num_positions),
        is_rows(problem.num_positions == 1) {}

  T* at(const Block& block, int64_t image, int64_t c) const {
    return first + (block.image + image) * image_stride + c * class_stride + block.position;
  }

  // Of a block of one image.
  Strip<T> from(const Block& block, int64_t lane) const {
    return {at(block, 0, 0) + lane, class_stride};
  }

  T* first;
  int64_t num_images, num_classes, image_stride, class_stride;
  bool is_rows;
};

// Begin to fetch as much as a group of float32 numbers.
inline void fetch_group(const void* from) {
  const char* at = static_cast<const char*>(from);
  for (size_t byte = 0; byte < kGroup * sizeof(float); byte += 64) __builtin_prefetch(at + byte);
}

// Where some numbers are in memory that are needed next; or nowhere.
struct Ahead {
  Ahead() = default;

  // The next group of lanes in the same planes.
  explicit Ahead(const Strip<const float>& strip)
      : first(reinterpret_cast<const char*>(strip.first + kGroup)),
        class_bytes(strip.stride * sizeof(float)) {}

  // A group of a block: of rows as many numbers for every class, of whichever class they are.
  template <typename T>
  Ahead(const Array<T>& array, const Block& block, int64_t lane)
      : first(reinterpret_cast<const char*>(array.is_rows ? array.at(block, lane, 0)
                                                          : array.at(block, 0, 0) + lane)),
        class_bytes((array.is_rows ? kGroup : array.class_stride) * sizeof(T)) {}

  void fetch(int64_t c) const {
    if (first) fetch_group(first + c * class_bytes);
  }

  const char* first = nullptr;
  int64_t class_bytes = 0;
};

// A group of lanes, or what is left of one: where its numbers are, and which lanes of the block
// it has.
struct Piece {
  Strip<const float> z, y;  // y are class probabilities, if there are any
  Strip<float> tile;        // of its exponentials, which may be where the logits are
  Ahead next_z, next_y;
  int64_t lane, size;
};

template <typename T>
void load_planes(const Array<const T>& array, const Block& block, const Tile& tile) {
  for (int64_t image = 0; image < block.num_images; ++image)
    for (int64_t c = 0; c < array.num_classes; ++c) {
      const T* from = array.at(block, image, c);
      float* to = tile.at(c, image * block.num_positions);
      for_vectors(0, block.num_positions, [&](int64_t lane, int64_t size) {
        store(load_some(from + lane, size, 0), to + lane);  // over the next image, still to come
      });
    }
}

template <typename T>
void store_planes(const Tile& tile, const Block& block, const Array<T>& array) {
  for (int64_t image = 0; image < block.num_images; ++image)
    for (int64_t c = 0; c < array.num_classes; ++c) {
      T* to = array.at(block, image, c);
      const float* from = tile.at(c, image * block.num_positions);
      for_vectors(0, block.num_positions, [&](int64_t lane, int64_t size) {
        store_some(load(from + lane), size, to + lane);
      });
    }
}

// The classes in panels of the widths that transpose.h knows: `f(width, c, size)`, `width` a
// constant and `size` the classes wanted.
template <typename F>
inline void for_panels(int64_t num_classes, F f) {
  int64_t c = 0;
  for (; c + kWidth / 2 < num_classes; c += kWidth)
    f(std::integral_constant<int, kWidth>(), c, std::min<int64_t>(num_classes - c, kWidth));
  if (kWidth > 8 && c + 4 < num_classes)
    f(std::integral_constant<int, 8>(), c, num_classes - c);
  else if (c < num_classes)
    f(std::integral_constant<int, 4>(), c, num_classes - c);
}

template <typename T>
void load_rows(const Array<const T>& array, const Block& block, const Tile& tile) {
  const T* end = array.at(Block(), array.num_images - 1, array.num_classes);
  for (int64_t lane = 0; lane < block.num_images; lane += kWidth)
    for_panels(array.num_classes, [&](auto width, int64_t c, int64_t size) {
      const T* rows = array.at(block, lane, c);
      int64_t stride = array.image_stride;
      T copy[kWidth * width];
      // What follows a row is read with it, unless it is the end of all.
      if (lane + kWidth > block.num_images || rows + (kWidth - 1) * stride + width > end) {
        for (int64_t i = 0; i < kWidth && lane + i < block.num_images; ++i)
          std::copy(rows + i * stride, rows + i * stride + size, copy + i * width);
        rows = copy;
        stride = width;
      }
      Floats columns[width];
      load_columns<width>(rows, stride, columns);
      for (int k = 0; k < width; ++k) store(columns[k], tile.at(c + k, lane));
    });
}

template <typename T>
void store_rows(const Tile& tile, const Block& block, const Array<T>& array) {
  for (int64_t lane = 0; lane < block.num_images; lane += kWidth)
    for_panels(array.num_classes, [&](auto width, int64_t c, int64_t size) {
      Floats columns[width];
      for (int k = 0; k < width; ++k) columns[k] = load(tile.at(c + k, lane));
      const int64_t num_rows = std::min<int64_t>(block.num_images - lane, kWidth);
      store_columns<width>(columns, num_rows, size, array.at(block, lane, c), array.image_stride);
    });
}

template <typename T>
void load_tile(const Array<const T>& array, const Block& block, const Tile& tile) {
  if (array.is_rows)
    load_rows(array, block, tile);
  else
    load_planes(array, block, tile);
}

template <typename T>
void store_tile(const Tile& tile, const Block& block, const Array<T>& array) {
  if (array.is_rows)
    store_rows(tile, block, array);
  else
    store_planes(tile, block, array);
}

}  // namespace
