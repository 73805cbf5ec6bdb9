// Positions as the numbers of vectors: what is known of them, and is made of their sums.

#pragma once

#include <algorithm>

#include "problem.h"
#include "vectors.h"

namespace {

constexpr int kGroup = 2 * kWidth;    // lanes computed at once, as an exponential waits for itself
constexpr int64_t kMostLanes = 1024;  // of a block

inline int64_t whole_groups(int64_t num_lanes) { return (num_lanes + kGroup - 1) / kGroup * kGroup; }

// What is known of the positions of a block. Those that are ignored, or beyond the block, have
// label 0 and mass 0, and what is computed for them is replaced by 0.
struct Lanes {
  int32_t label[kMostLanes];
  int32_t counts[kMostLanes];  // every bit, or none
  float mass[kMostLanes];      // of q at the label
  float loss[kMostLanes];
  double scale[kMostLanes];    // the incoming gradient
};

// Of a vector of lanes: the largest logit m, and sums over the classes.
struct Totals {
  Floats largest;
  double sum[kWidth] = {};  // of exp(alpha (z - m))
  Floats rest = {};         // of the rest of q
  Floats dot = {};          // of the rest of q times z - m
};

// A gradient is of_p exp(alpha (z - m)) - scale (rest of q), less at_label at the label.
struct Factors {
  Floats of_p, scale, at_label;
};

// What is computed of lanes before and after the sums over their classes.
class LaneMath {
 public:
  explicit LaneMath(const Target& target) : target_(target), problem_(target.problem) {}

  // Read what is known of some positions from number i on, as many as groups have.
  Sums read(int64_t i, int64_t num_lanes, Lanes& lanes) const {
    if (problem_.labels) return read_labels(problem_.labels + i, num_lanes, lanes);
    std::fill_n(lanes.label, whole_groups(num_lanes), 0);
    std::fill_n(lanes.counts, whole_groups(num_lanes), 0);
    std::fill_n(lanes.counts, num_lanes, -1);
    std::fill_n(lanes.mass, whole_groups(num_lanes), 0.0f);
    Sums sums;
    sums.weight = static_cast<double>(num_lanes);
    return sums;
  }

  void read_scales(const Incoming& incoming, int64_t i, int64_t num_lanes, Lanes& lanes) const {
    std::fill_n(lanes.scale, whole_groups(num_lanes), incoming.scale(0));
    if (!incoming.is_each) return;
    for (int64_t lane = 0; lane < num_lanes; ++lane) lanes.scale[lane] = incoming.scale(i + lane);
  }

  // `at_label` are the logits at the labels.
  template <Rest kRest>
  SGT_INLINE void write_losses(Lanes& lanes, int64_t lane, const Totals& totals,
                               Floats at_label) const {
    float sum[kWidth];
    for (int j = 0; j < kWidth; ++j) sum[j] = static_cast<float>(totals.sum[j]);
    const Floats label_mass = load(lanes.mass + lane);
    Floats mass = label_mass;
    if (kRest == Rest::kSoft) mass = totals.rest;
    if (kRest == Rest::kEven) mass += static_cast<float>(target_.even_mass);
    Floats loss = mass * log_of(load(sum));
    if (kRest != Rest::kNone) loss -= totals.dot;
    if (kRest != Rest::kSoft) loss -= label_mass * (at_label - totals.largest);
    store(zero_unless(load(lanes.counts + lane), loss), lanes.loss + lane);
  }

  template <Rest kRest>
  SGT_INLINE Factors factors(const Lanes& lanes, int64_t lane, const Totals& totals) const {
    float rest[kWidth], of_p[kWidth], scale[kWidth];
    store(totals.rest, rest);
    const double* scales = lanes.scale + lane;
    const float* masses = lanes.mass + lane;
    for (int j = 0; j < kWidth; ++j) {
      const double mass = kRest == Rest::kSoft ? rest[j] : masses[j] + target_.even_mass;
      of_p[j] = static_cast<float>(scales[j] * mass / totals.sum[j]);
    }
    for (int j = 0; j < kWidth; ++j) scale[j] = static_cast<float>(scales[j]);
    return {load(of_p), load(scale), load(scale) * load(masses)};
  }

  static double sum_of_losses(const Lanes& lanes, int64_t num_lanes) {
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t lane = 0; lane < num_lanes; ++lane) total += lanes.loss[lane];
    return total;
  }

  static Floats zero_unless(Ints counts, Floats x) { return (Floats)((Ints)x & counts); }

 private:
  Sums read_labels(const int64_t* labels, int64_t num_lanes, Lanes& lanes) const {
    const Ints ignored_low = Ints{} + static_cast<int32_t>(problem_.ignore_index);
    const Ints ignored_high = Ints{} + static_cast<int32_t>(problem_.ignore_index >> 32);
    const int32_t num_classes = static_cast<int32_t>(problem_.num_classes);
    const Floats keep = splat(static_cast<float>(target_.keep));
    Ints num_counted = {}, is_wrong = {};
    for (int64_t lane = 0; lane < whole_groups(num_lanes); lane += kWidth) {
      Ints low, high;
      load_labels(labels + lane, num_lanes - lane, low, high);
      const Ints counts = (low != ignored_low) | (high != ignored_high);
      const Ints is_class = (high == 0) & (low >= 0) & (low < num_classes);
      store(low & counts & is_class, lanes.label + lane);
      store(counts, lanes.counts + lane);
      store(zero_unless(counts, keep), lanes.mass + lane);
      num_counted -= counts;
      is_wrong |= counts & ~is_class;
    }
    Sums sums;
    for (int j = 0; j < kWidth; ++j) {
      sums.weight += num_counted[j];
      sums.is_wrong |= is_wrong[j] != 0;
    }
    const float* weight = problem_.weight;
    if (!weight) return sums;
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t lane = 0; lane < num_lanes; ++lane) {
      const double counted = lanes.counts[lane] ? weight[lanes.label[lane]] : 0;
      lanes.mass[lane] = static_cast<float>(target_.keep * counted);
      total += counted;
    }
    sums.weight = total;
    return sums;
  }

  // The halves of some labels; those that are missing are ignored.
  void load_labels(const int64_t* labels, int64_t size, Ints& low, Ints& high) const {
    int64_t part[kWidth];
    if (size < kWidth) {
      std::fill_n(part, kWidth, problem_.ignore_index);
      if (size > 0) std::copy_n(labels, size, part);
      labels = part;
    }
    const int32_t* words = reinterpret_cast<const int32_t*>(labels);
    const Ints first = load(words), second = load(words + kWidth);
    low = every_second<0>(first, second, std::make_integer_sequence<int, kWidth>());
    high = every_second<1>(first, second, std::make_integer_sequence<int, kWidth>());
  }

  template <int kFirst, int... i>
  static Ints every_second(Ints x, Ints y, std::integer_sequence<int, i...>) {
    return __builtin_shuffle(x, y, Ints{2 * i + kFirst...});
  }

  const Target& target_;
  const Problem& problem_;
};

}  // namespace
