// What is computed: logits, target and options, and the target's distribution.

#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "vectors.h"

extern "C" {

// As PROBLEM of native_library.py. A position is what one loss is of: a pixel of an image, or a
// row of logits, which is an image of one position.
struct Problem {
  const void* z;          // (N, C, P), the positions of a class adjacent, or a row's classes
  const int64_t* labels;  // (N, P) class indices, or null
  const float* y;         // (N, C, P) class probabilities, contiguous, or null
  const float* weight;    // (C,) class weights, or null
  int64_t num_images, num_classes, num_positions;  // N, C, P
  int64_t image_stride, class_stride;              // of z, in numbers
  int64_t ignore_index;
  double label_smoothing;
  int32_t dtype;    // of z and its gradient: 0 float32, 1 bfloat16, 2 float16
  int32_t divides;  // whether the reduction is "mean"
  int32_t num_threads;
};

}  // extern "C"

namespace {

inline int64_t num_logits(const Problem& problem) {
  return problem.num_images * problem.num_classes * problem.num_positions;
}

// The rest of q: nothing, the even share of the smoothing, or class probabilities.
enum class Rest { kNone, kEven, kSoft };

// Call `f` with the rest as a constant.
template <typename F>
SGT_INLINE auto with_rest(Rest rest, F f) {
  if (rest == Rest::kNone) return f(std::integral_constant<Rest, Rest::kNone>());
  if (rest == Rest::kEven) return f(std::integral_constant<Rest, Rest::kEven>());
  return f(std::integral_constant<Rest, Rest::kSoft>());
}

// q is a label's part, of one class a position, and a rest: of class indices the even share of
// the smoothing, w_c e / C; of class probabilities y all of it, w_c ((1 - e) y_c + e / C).
struct Target {
  explicit Target(const Problem& problem)
      : problem(problem), keep(1 - problem.label_smoothing) {
    rest = problem.y ? Rest::kSoft : problem.label_smoothing > 0 ? Rest::kEven : Rest::kNone;
    if (rest == Rest::kNone) return;
    const float share = static_cast<float>(problem.label_smoothing / problem.num_classes);
    even.resize(problem.num_classes);
    for (int64_t c = 0; c < problem.num_classes; ++c) {
      even[c] = share * (problem.weight ? problem.weight[c] : 1.0f);
      even_mass += even[c];
    }
  }

  bool is_ignored(int64_t i) const {
    return problem.labels && problem.labels[i] == problem.ignore_index;
  }

  bool is_wrong(int64_t i) const {
    if (!problem.labels || is_ignored(i)) return false;
    return problem.labels[i] < 0 || problem.labels[i] >= problem.num_classes;
  }

  // What position i counts in a mean; it is not ignored, and its label is a class.
  double row_weight(int64_t i) const {
    return problem.labels && problem.weight ? problem.weight[problem.labels[i]] : 1.0;
  }

  float label_mass(int64_t i) const {
    return problem.labels ? static_cast<float>(keep * row_weight(i)) : 0;
  }

  const Problem& problem;
  Rest rest;
  double keep;              // 1 - e
  std::vector<float> even;  // w_c e / C of every class, where there is a rest
  double even_mass = 0;
};

// Of some positions: the sum of their losses, what they count in a mean, whether a label is none.
struct Sums {
  double loss = 0, weight = 0;
  bool is_wrong = false;
};

// The gradient of the loss, one number for all positions or one each; and alpha.
struct Incoming {
  const float* grad_loss;
  bool is_each;
  double divisor;
  float alpha;

  double scale(int64_t i) const { return grad_loss[is_each ? i : 0] / divisor; }
};

}  // namespace
