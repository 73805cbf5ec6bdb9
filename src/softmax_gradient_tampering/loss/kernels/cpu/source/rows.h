// Rows of many classes: the numbers of a vector are classes of one row.
//
// Some rows are taken at once. They stay in the nearest cache, and what is left of a row's sums, a
// vector, is summed for all of them together. Sums are float32 over a chunk of classes and double
// over chunks.

#pragma once

#include <memory>

#include "lanes.h"
#include "problem.h"
#include "vectors.h"

namespace {

// Some rows.
struct RowBlock {
  int64_t i, num_rows;  // the first row, and how many
  const float* x;       // its logits
  int64_t stride;
  float* gradient;      // adjacent rows; it holds the exponentials in the meantime
};

inline int64_t most_rows_of(int64_t num_classes) {
  constexpr int64_t kNumbers = 8192;  // of a block: they and their gradient stay in a cache
  return std::clamp<int64_t>(kNumbers / num_classes, 1, kWidth);
}

// What is computed of some rows.
class RowMath : public LaneMath {
 public:
  explicit RowMath(const Target& target)
      : LaneMath(target),
        target_(target),
        problem_(target.problem),
        num_classes_(problem_.num_classes),
        most_rows_(most_rows_of(num_classes_)) {}

  void write_losses(const RowBlock& block, Lanes& lanes) const {
    with_rest(target_.rest, [&](auto rest) {
      const Totals totals = sum<rest, false>(block, lanes, 1.0f);
      Floats at_label = {};
      for (int64_t row = 0; row < block.num_rows; ++row)
        at_label[row] = block.x[row * block.stride + lanes.label[row]];
      LaneMath::write_losses<rest>(lanes, 0, totals, at_label);
    });
  }

  void write_gradient(const RowBlock& block, const Lanes& lanes, float alpha) const {
    with_rest(target_.rest, [&](auto rest) {
      const Totals totals = sum<rest, true>(block, lanes, alpha);
      write_gradient<rest>(block, lanes, factors<rest>(lanes, 0, totals));
    });
  }

 private:
  static constexpr int64_t kChunk = 2048;

  template <Rest kRest, bool kIsGradient>
  Totals sum(const RowBlock& block, const Lanes& lanes, float alpha) const {
    const auto add = [](Floats x, Floats y) { return x + y; };
    Totals totals;
    Floats vectors[kWidth];
    for (Floats& each : vectors) each = splat(-INFINITY);
    for (int64_t row = 0; row < block.num_rows; ++row)
      if (lanes.counts[row]) vectors[row] = largest(block.x + row * block.stride);
    totals.largest = fold(vectors, max_of);
    for (int64_t begin = 0; begin < num_classes_; begin += kChunk) {
      const int64_t end = std::min(begin + kChunk, num_classes_);
      Floats sums[kWidth] = {}, rests[kWidth] = {}, dots[kWidth] = {};
      for (int64_t row = 0; row < block.num_rows; ++row) {
        if (!lanes.counts[row]) continue;
        const float* x = block.x + row * block.stride;
        const float m = totals.largest[row];
        Floats sum = {}, rest = {}, dot = {};
        for_vectors(begin, end, [&](int64_t c, int64_t size) {
          __builtin_prefetch(x + c + most_rows_ * block.stride);  // of the next block
          const Floats shifted = load_some(x + c, size, -INFINITY) - m;
          const Floats e = exp_of(kIsGradient ? alpha * shifted : shifted);
          if (kIsGradient) store_some(e, size, block.gradient + row * num_classes_ + c);
          sum += e;
          if (kRest == Rest::kNone) return;
          const Floats q = rest_of_q<kRest>(block.i + row, c, size);
          if (kRest == Rest::kSoft) rest += q;
          if (!kIsGradient) dot += q * (load_some(x + c, size, m) - m);
        });
        sums[row] = sum;
        rests[row] = rest;
        dots[row] = dot;
      }
      const Floats sum = fold(sums, add);
      for (int j = 0; j < kWidth; ++j) totals.sum[j] += sum[j];
      if (kRest == Rest::kSoft) totals.rest += fold(rests, add);
      if (kRest != Rest::kNone && !kIsGradient) totals.dot += fold(dots, add);
    }
    return totals;
  }

  template <Rest kRest>
  void write_gradient(const RowBlock& block, const Lanes& lanes, const Factors& factors) const {
    for (int64_t row = 0; row < block.num_rows; ++row) {
      float* gradient = block.gradient + row * num_classes_;
      if (!lanes.counts[row]) {
        std::fill_n(gradient, num_classes_, 0.0f);
        continue;
      }
      const float of_p = factors.of_p[row], scale = factors.scale[row];
      for_vectors(0, num_classes_, [&](int64_t c, int64_t size) {
        Floats g = of_p * load_some(gradient + c, size, 0);
        if (kRest != Rest::kNone) g -= scale * rest_of_q<kRest>(block.i + row, c, size);
        store_some(g, size, gradient + c);
      });
      if (kRest != Rest::kSoft) gradient[lanes.label[row]] -= factors.at_label[row];
    }
  }

  Floats largest(const float* x) const {
    constexpr int64_t kAtOnce = 4;  // a maximum waits for the one before it
    Floats m[kAtOnce];
    for (Floats& each : m) each = splat(-INFINITY);
    int64_t c = 0;
    for (; c + kAtOnce * kWidth <= num_classes_; c += kAtOnce * kWidth)
      for (int k = 0; k < kAtOnce; ++k) m[k] = max_of(load(x + c + k * kWidth), m[k]);
    for_vectors(c, num_classes_, [&](int64_t c, int64_t size) {
      m[0] = max_of(load_some(x + c, size, -INFINITY), m[0]);
    });
    return max_of(max_of(m[0], m[1]), max_of(m[2], m[3]));
  }

  // 0 beyond the classes.
  template <Rest kRest>
  Floats rest_of_q(int64_t i, int64_t c, int64_t size) const {
    const Floats even = load_some(target_.even.data() + c, size, 0);
    if (kRest == Rest::kEven) return even;
    Floats q = static_cast<float>(target_.keep) *
               load_some(problem_.y + i * num_classes_ + c, size, 0);
    if (problem_.weight) q *= load_some(problem_.weight + c, size, 0);
    return q + even;
  }

  const Target& target_;
  const Problem& problem_;
  const int64_t num_classes_, most_rows_;
};

// Blocks of rows; those of half types are copied to float32 and back.
template <typename T>
class RowBlocks {
 public:
  explicit RowBlocks(const Target& target)
      : problem_(target.problem),
        num_classes_(problem_.num_classes),
        most_rows_(most_rows_of(num_classes_)),
        math_(target) {}

  // `rows` are the logits of half types as float32, and then their gradients.
  struct Scratch {
    explicit Scratch(const RowBlocks& blocks)
        : rows(kIsFloat ? nullptr : new float[blocks.most_rows_ * blocks.num_classes_]) {}
    std::unique_ptr<float[]> rows;
    Lanes lanes;
  };

  int64_t count() const { return (problem_.num_images + most_rows_ - 1) / most_rows_; }

  Sums forward(int64_t index, Scratch& scratch, float* losses) const {
    RowBlock block = at(index);
    Lanes& lanes = scratch.lanes;
    Sums sums = math_.read(block.i, block.num_rows, lanes);
    if (sums.is_wrong) return sums;
    read_logits(block, scratch);
    math_.write_losses(block, lanes);
    if (losses) std::copy_n(lanes.loss, block.num_rows, losses + block.i);
    sums.loss = math_.sum_of_losses(lanes, block.num_rows);
    return sums;
  }

  void backward(int64_t index, Scratch& scratch, const Incoming& incoming, T* gradient) const {
    RowBlock block = at(index);
    Lanes& lanes = scratch.lanes;
    math_.read(block.i, block.num_rows, lanes);
    math_.read_scales(incoming, block.i, block.num_rows, lanes);
    read_logits(block, scratch);
    T* result = gradient + block.i * num_classes_;
    if constexpr (kIsFloat)
      block.gradient = result;
    else
      block.gradient = scratch.rows.get();
    math_.write_gradient(block, lanes, incoming.alpha);
    if constexpr (!kIsFloat) copy(block.gradient, block.num_rows * num_classes_, result);
  }

 private:
  static constexpr bool kIsFloat = std::is_same_v<T, float>;

  RowBlock at(int64_t index) const {
    const int64_t i = index * most_rows_;
    return {i, std::min(most_rows_, problem_.num_images - i), nullptr, 0, nullptr};
  }

  void read_logits(RowBlock& block, const Scratch& scratch) const {
    const T* z = static_cast<const T*>(problem_.z) + block.i * problem_.image_stride;
    if constexpr (kIsFloat) {
      block.x = z;
      block.stride = problem_.image_stride;
    } else {
      for (int64_t row = 0; row < block.num_rows; ++row)
        copy(z + row * problem_.image_stride, num_classes_, scratch.rows.get() + row * num_classes_);
      block.x = scratch.rows.get();
      block.stride = num_classes_;
    }
  }

  template <typename From, typename To>
  static void copy(const From* from, int64_t size, To* to) {
    for_vectors(0, size, [&](int64_t i, int64_t some) {
      store_some(load_some(from + i, some, 0), some, to + i);
    });
  }

  const Problem& problem_;
  const int64_t num_classes_, most_rows_;
  const RowMath math_;
};

}  // namespace
