// Rows of many classes: the numbers of a vector are classes of one row.
//
// A row is read from memory once in each pass, and then from the cache. Sums are float32 over a
// chunk of classes and double over chunks.

#pragma once

#include <memory>

#include "problem.h"
#include "vectors.h"

namespace {

// The double sum of `f(c, size)`, vectors that are summed as float32 within a chunk.
template <typename F>
inline double sum_over(int64_t num_classes, F f) {
  constexpr int64_t kChunk = 2048;
  double total = 0;
  for (int64_t begin = 0; begin < num_classes; begin += kChunk) {
    Floats sum = {};
    const int64_t end = begin + kChunk < num_classes ? begin + kChunk : num_classes;
    for_vectors(begin, end, [&](int64_t c, int64_t size) { sum += f(c, size); });
    total += fold(sum, [](Floats x, Floats y) { return x + y; });
  }
  return total;
}

// Of row i, whose logits x are float32.
class RowMath {
 public:
  explicit RowMath(const Target& target)
      : target_(target), problem_(target.problem), num_classes_(problem_.num_classes) {}

  double loss(int64_t i, const float* x) const {
    return with_rest(target_.rest, [&](auto rest) { return loss<rest>(i, x); });
  }

  // `gradient` may be x; it holds the exponentials in the meantime.
  void write_gradient(int64_t i, const float* x, double scale, float alpha, float* gradient) const {
    with_rest(target_.rest, [&](auto rest) { write<rest>(i, x, scale, alpha, gradient); });
  }

 private:
  template <Rest kRest>
  double loss(int64_t i, const float* x) const {
    const float m = largest(x);
    const double sum = sum_over(num_classes_, [&](int64_t c, int64_t size) {
      return exp_of(load_some(x + c, size, -INFINITY) - m);
    });
    double result = mass<kRest>(i) * std::log(sum);
    if (kRest != Rest::kNone)
      result -= sum_over(num_classes_, [&](int64_t c, int64_t size) {
        return rest_of_q<kRest>(i, c, size) * (load_some(x + c, size, m) - m);
      });
    if (problem_.labels) result -= double{target_.label_mass(i)} * (x[problem_.labels[i]] - m);
    return result;
  }

  template <Rest kRest>
  void write(int64_t i, const float* x, double scale, float alpha, float* gradient) const {
    const float m = largest(x);
    const double sum = sum_over(num_classes_, [&](int64_t c, int64_t size) {
      const Floats e = exp_of(alpha * (load_some(x + c, size, -INFINITY) - m));
      store_some(e, size, gradient + c);
      return e;
    });
    const float factor = static_cast<float>(scale * mass<kRest>(i) / sum);
    const float row_scale = static_cast<float>(scale);
    for_vectors(0, num_classes_, [&](int64_t c, int64_t size) {
      Floats g = factor * load_some(gradient + c, size, 0);
      if (kRest != Rest::kNone) g -= row_scale * rest_of_q<kRest>(i, c, size);
      store_some(g, size, gradient + c);
    });
    if (problem_.labels) gradient[problem_.labels[i]] -= row_scale * target_.label_mass(i);
  }

  float largest(const float* x) const {
    constexpr int64_t kAtOnce = 4;  // a maximum waits for the one before it
    Floats m[kAtOnce];
    for (Floats& each : m) each = splat(-INFINITY);
    int64_t c = 0;
    for (; c + kAtOnce * kWidth <= num_classes_; c += kAtOnce * kWidth)
      for (int k = 0; k < kAtOnce; ++k) m[k] = max_of(load(x + c + k * kWidth), m[k]);
    for_vectors(c, num_classes_, [&](int64_t c, int64_t size) {
      m[0] = max_of(load_some(x + c, size, -INFINITY), m[0]);
    });
    return fold(max_of(max_of(m[0], m[1]), max_of(m[2], m[3])), max_of);
  }

  // sum_c(q)
  template <Rest kRest>
  double mass(int64_t i) const {
    if (kRest != Rest::kSoft) return target_.label_mass(i) + target_.even_mass;
    return sum_over(num_classes_, [&](int64_t c, int64_t size) {
      return rest_of_q<kRest>(i, c, size);
    });
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
  const int64_t num_classes_;
};

// Blocks of positions of one row each.
template <typename T>
class RowBlocks {
 public:
  explicit RowBlocks(const Target& target)
      : target_(target), problem_(target.problem), math_(target) {}

  // The logits of a half type as float32.
  struct Scratch {
    explicit Scratch(const RowBlocks& blocks)
        : row(std::is_same_v<T, float> ? nullptr : new float[blocks.problem_.num_classes]) {}
    std::unique_ptr<float[]> row;
  };

  int64_t count() const { return problem_.num_images; }

  Sums forward(int64_t i, Scratch& scratch, float* losses) const {
    Sums sums;
    sums.is_wrong = target_.is_wrong(i);
    if (!sums.is_wrong && !target_.is_ignored(i)) {
      sums.loss = math_.loss(i, in_float(row(i), scratch.row.get()));
      sums.weight = target_.row_weight(i);
    }
    if (losses) losses[i] = static_cast<float>(sums.loss);
    return sums;
  }

  void backward(int64_t i, Scratch& scratch, const Incoming& incoming, T* gradient) const {
    T* result = gradient + i * problem_.num_classes;
    if (target_.is_ignored(i)) {
      std::memset(static_cast<void*>(result), 0, problem_.num_classes * sizeof(T));
      return;
    }
    const float* x = in_float(row(i), scratch.row.get());
    float* in_place = place_of(result, scratch.row.get());
    math_.write_gradient(i, x, incoming.scale(i), incoming.alpha, in_place);
    round_to(in_place, result);
  }

 private:
  const T* row(int64_t i) const {
    return static_cast<const T*>(problem_.z) + i * problem_.image_stride;
  }

  const float* in_float(const float* z, float*) const { return z; }
  float* place_of(float* result, float*) const { return result; }
  void round_to(const float*, float*) const {}  // it was written in its place

  template <typename Half>
  const float* in_float(const Half* z, float* row) const {
    for_vectors(0, problem_.num_classes, [&](int64_t c, int64_t size) {
      store_some(load_some(z + c, size, 0), size, row + c);
    });
    return row;
  }

  template <typename Half>
  float* place_of(Half*, float* row) const {
    return row;
  }

  template <typename Half>
  void round_to(const float* row, Half* result) const {
    for_vectors(0, problem_.num_classes, [&](int64_t c, int64_t size) {
      store_some(load_some(row + c, size, 0), size, result + c);
    });
  }

  const Target& target_;
  const Problem& problem_;
  const RowMath math_;
};

}  // namespace
