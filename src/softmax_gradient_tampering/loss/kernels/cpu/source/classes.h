// Blocks of some classes of every row: what is summed over the classes, block by block, and the
// gradient that is made of the sums. A block's logits are made, used and forgotten, or kept.

#pragma once

#include <algorithm>
#include <cfloat>

#include "problem.h"
#include "vectors.h"

extern "C" {

// As ClassBlock of native_library.py.
struct ClassBlock {
  const float* z;         // (N, size) logits, contiguous
  const int64_t* labels;  // (N,) among all classes
  int64_t num_rows, first_class, size;
  int64_t ignore_index;
  int32_t num_threads;
};

// As RowSums of native_library.py: of every row (N,), over the classes so far.
struct RowSums {
  float* largest;        // m, the largest logit; at first the least number
  double* exp;           // sum_c exp(z - m)
  double* exp_tampered;  // sum_c exp(alpha (z - m)), or null
  float* label_logit;    // of rows whose label has passed
};

}  // extern "C"

namespace {

// Rows of adjacent numbers. Those that are ignored count for nothing, whatever their logits are.
class RowsOfBlock {
 public:
  explicit RowsOfBlock(const ClassBlock& block) : block_(block) {}

  bool is_ignored(int64_t row) const { return block_.labels[row] == block_.ignore_index; }

  void add(int64_t row, float alpha, const RowSums& sums) const {
    const float* x = block_.z + row * block_.size;
    const float before = sums.largest[row], m = std::max(before, largest(x));
    Floats exp = {}, tampered = {};
    for_vectors(0, block_.size, [&](int64_t c, int64_t size) {
      const Floats shifted = load_some(x + c, size, -INFINITY) - m;
      exp += exp_of(shifted);
      if (sums.exp_tampered) tampered += exp_of(alpha * shifted);
    });
    sums.largest[row] = m;
    grow(sums.exp[row], before - m, exp);
    if (sums.exp_tampered) grow(sums.exp_tampered[row], alpha * (before - m), tampered);
    if (has_label(row)) sums.label_logit[row] = x[block_.labels[row] - block_.first_class];
  }

  // factor exp(alpha (z - m)), less at_label at the label.
  void write_gradient(int64_t row, float alpha, float m, float factor, float at_label,
                      float* gradient) const {
    const float* x = block_.z + row * block_.size;
    for_vectors(0, block_.size, [&](int64_t c, int64_t size) {
      const Floats shifted = load_some(x + c, size, -INFINITY) - m;
      store_some(factor * exp_of(alpha * shifted), size, gradient + c);
    });
    if (has_label(row)) gradient[block_.labels[row] - block_.first_class] -= at_label;
  }

 private:
  bool has_label(int64_t row) const {
    const int64_t place = block_.labels[row] - block_.first_class;
    return place >= 0 && place < block_.size;
  }

  float largest(const float* x) const {
    Floats m[2] = {splat(-FLT_MAX), splat(-FLT_MAX)};
    int64_t c = 0;
    for (; c + 2 * kWidth <= block_.size; c += 2 * kWidth)
      for (int k = 0; k < 2; ++k) m[k] = max_of(load(x + c + k * kWidth), m[k]);
    for_vectors(c, block_.size, [&](int64_t c, int64_t size) {
      m[0] = max_of(load_some(x + c, size, -INFINITY), m[0]);
    });
    float each[kWidth];
    store(max_of(m[0], m[1]), each);
    return *std::max_element(each, each + kWidth);
  }

  // The sum so far, relative to the largest logit now, and what the block adds to it.
  static void grow(double& sum, float shift, Floats added) {
    if (shift != 0) sum *= std::exp(static_cast<double>(shift));
    float each[kWidth];
    store(added, each);
    for (float number : each) sum += number;
  }

  const ClassBlock& block_;
};

}  // namespace
