// Images, and rows of few classes: the numbers of a vector are one class of adjacent positions, its
// lanes.

#pragma once

#include "tile.h"

namespace {

// What is known of the lanes of a block. Lanes that are ignored, or beyond the positions, have
// label 0 and mass 0, and what is computed for them is replaced by 0.
struct Lanes {
  int32_t label[kMostLanes];
  int32_t counts[kMostLanes];  // every bit, or none
  float mass[kMostLanes];      // of q at the label
  float at_label[kMostLanes];  // the logit
  float loss[kMostLanes];
  double scale[kMostLanes];    // the incoming gradient
};

// Where the next block is in memory, which is fetched while this one is computed; or nowhere.
struct Ahead {
  const char* first = nullptr;
  int64_t class_bytes = 0, lane_bytes = 0;

  void fetch(int64_t c, int64_t lane) const {
    if (!first) return;
    const char* at = first + c * class_bytes + lane * lane_bytes;
    for (int64_t byte = 0; byte < kGroup * lane_bytes; byte += 64) __builtin_prefetch(at + byte);
  }
};

// Of kGroup lanes of a tile, from `first` on. `y` holds class probabilities, if there are any.
class LaneMath {
 public:
  explicit LaneMath(const Target& target)
      : target_(target), problem_(target.problem), num_classes_(problem_.num_classes) {}

  // Read what is known of a block's lanes, as many as groups have.
  Sums read(const Block& block, Lanes& lanes) const {
    const int64_t num_lanes = block.num_lanes();
    for (int64_t lane = num_lanes; lane < whole_groups(num_lanes); ++lane) {
      lanes.label[lane] = lanes.counts[lane] = 0;
      lanes.mass[lane] = lanes.at_label[lane] = 0;
      lanes.scale[lane] = 0;
    }
    if (problem_.labels) return read_labels(problem_.labels + block.i, num_lanes, lanes);
    std::fill_n(lanes.label, num_lanes, 0);
    std::fill_n(lanes.counts, num_lanes, -1);
    std::fill_n(lanes.mass, num_lanes, 0.0f);
    Sums sums;
    sums.weight = static_cast<double>(num_lanes);
    return sums;
  }

  template <Rest kRest>
  void write_losses(Lanes& lanes, int64_t first, const Tile& tile, const Tile& y,
                    const Ahead& ahead) const {
    const Group group = sum<kRest, false>(first, 1.0f, tile, y, ahead);
    for (int k = 0; k < kVectors; ++k) {
      const int64_t lane = first + k * kWidth;
      const Floats label_mass = load(lanes.mass + lane);
      const Floats mass = kRest == Rest::kSoft ? group.rest[k]
                          : kRest == Rest::kEven
                              ? label_mass + static_cast<float>(target_.even_mass)
                              : label_mass;
      Floats loss = mass * log_of(group.sum[k]);
      if (kRest != Rest::kNone) loss -= group.dot[k];
      if (kRest != Rest::kSoft)
        loss -= label_mass * (load(lanes.at_label + lane) - group.largest[k]);
      store(zero_unless(load(lanes.counts + lane), loss), lanes.loss + lane);
    }
  }

  // The tile becomes the gradient, scale (sum_c(q) p' - q).
  template <Rest kRest>
  void write_gradient(const Lanes& lanes, int64_t first, float alpha, const Tile& tile,
                      const Tile& y, const Ahead& ahead) const {
    const Group group = sum<kRest, true>(first, alpha, tile, y, ahead);
    Floats factor[kVectors], scale[kVectors], at_label[kVectors];
    Ints label[kVectors], counts[kVectors];
    for (int k = 0; k < kVectors; ++k) {
      const int64_t lane = first + k * kWidth;
      for (int j = 0; j < kWidth; ++j) {
        const double mass = kRest == Rest::kSoft ? group.rest[k][j]
                                                 : lanes.mass[lane + j] + target_.even_mass;
        factor[k][j] = static_cast<float>(lanes.scale[lane + j] * mass / group.sum[k][j]);
        scale[k][j] = static_cast<float>(lanes.scale[lane + j]);
      }
      label[k] = load(lanes.label + lane);
      counts[k] = load(lanes.counts + lane);
      at_label[k] = scale[k] * load(lanes.mass + lane);
    }
    for (int64_t c = 0; c < num_classes_; ++c)
      for (int k = 0; k < kVectors; ++k) {
        float* at = tile.at(c, first + k * kWidth);
        Floats gradient = factor[k] * load(at);
        if (kRest != Rest::kNone)
          gradient -= scale[k] * rest_of_q<kRest>(c, y.at(c, first + k * kWidth));
        if (kRest != Rest::kSoft)
          gradient -= label[k] == static_cast<int32_t>(c) ? at_label[k] : Floats{};
        store(zero_unless(counts[k], gradient), at);
      }
  }

 private:
  static constexpr int kVectors = kGroup / kWidth;

  // Of some lanes: the largest logit m, and sums over the classes.
  struct Group {
    Floats largest[kVectors];
    Floats sum[kVectors] = {};   // of exp(alpha (z - m))
    Floats rest[kVectors] = {};  // of the rest of q
    Floats dot[kVectors] = {};   // of the rest of q times z - m
  };

  Sums read_labels(const int64_t* labels, int64_t num_lanes, Lanes& lanes) const {
    const int64_t ignored = problem_.ignore_index, num_classes = num_classes_;
    int64_t num_counted = 0, num_wrong = 0;
#pragma omp simd reduction(+ : num_counted, num_wrong)
    for (int64_t lane = 0; lane < num_lanes; ++lane) {
      const bool is_class = labels[lane] >= 0 && labels[lane] < num_classes;
      const bool is_counted = labels[lane] != ignored;
      lanes.label[lane] = is_counted && is_class ? static_cast<int32_t>(labels[lane]) : 0;
      lanes.counts[lane] = is_counted ? -1 : 0;
      num_counted += is_counted;
      num_wrong += is_counted && !is_class;
    }
    Sums sums;
    sums.is_wrong = num_wrong > 0;
    sums.weight = static_cast<double>(num_counted);
    const float* weight = problem_.weight;
    const double keep = target_.keep;
    if (!weight) {
      const float mass = static_cast<float>(keep);
      for (int64_t lane = 0; lane < num_lanes; ++lane)
        lanes.mass[lane] = lanes.counts[lane] ? mass : 0;
      return sums;
    }
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t lane = 0; lane < num_lanes; ++lane) {
      const double counted = lanes.counts[lane] ? weight[lanes.label[lane]] : 0;
      lanes.mass[lane] = static_cast<float>(keep * counted);
      total += counted;
    }
    sums.weight = total;
    return sums;
  }

  template <Rest kRest, bool kIsGradient>
  Group sum(int64_t first, float alpha, const Tile& tile, const Tile& y, const Ahead& ahead) const {
    constexpr int64_t kRun = 16;  // sums of so many classes are summed, which rounds less
    Group group;
    for (Floats& largest : group.largest) largest = splat(-INFINITY);
    for (int64_t c = 0; c < num_classes_; ++c)
      for (int k = 0; k < kVectors; ++k)
        group.largest[k] = max_of(load(tile.at(c, first + k * kWidth)), group.largest[k]);
    for (int64_t begin = 0; begin < num_classes_; begin += kRun) {
      Group run;
      for (int64_t c = begin; c < std::min(begin + kRun, num_classes_); ++c) {
        ahead.fetch(c, first);
        for (int k = 0; k < kVectors; ++k) {
          float* at = tile.at(c, first + k * kWidth);
          const Floats shifted = load(at) - group.largest[k];
          const Floats e = exp_of(kIsGradient ? alpha * shifted : shifted);
          run.sum[k] += e;
          if (kIsGradient) store(e, at);
          if (kRest == Rest::kNone) continue;
          const Floats rest = rest_of_q<kRest>(c, y.at(c, first + k * kWidth));
          if (kRest == Rest::kSoft) run.rest[k] += rest;
          if (!kIsGradient) run.dot[k] += rest * shifted;
        }
      }
      for (int k = 0; k < kVectors; ++k) {
        group.sum[k] += run.sum[k];
        group.rest[k] += run.rest[k];
        group.dot[k] += run.dot[k];
      }
    }
    return group;
  }

  template <Rest kRest>
  Floats rest_of_q(int64_t c, const float* y) const {
    if (kRest == Rest::kEven) return splat(target_.even[c]);
    const float weight = problem_.weight ? problem_.weight[c] : 1.0f;
    return static_cast<float>(target_.keep) * weight * load(y) + target_.even[c];
  }

  static Floats zero_unless(Ints counts, Floats x) { return (Floats)((Ints)x & counts); }

  const Target& target_;
  const Problem& problem_;
  const int64_t num_classes_;
};

// Blocks of positions, each copied into a tile, which becomes its gradient and is copied out.
template <typename T>
class TileBlocks {
 public:
  explicit TileBlocks(const Target& target)
      : target_(target),
        problem_(target.problem),
        cutting_(problem_),
        math_(target),
        z_(static_cast<const T*>(problem_.z), problem_),
        y_(problem_.y, problem_) {
    z_.image_stride = problem_.image_stride;
    z_.class_stride = problem_.class_stride;
  }

  struct Scratch {
    explicit Scratch(const TileBlocks& blocks)
        : tile(blocks.problem_.num_classes, blocks.cutting_.most_lanes()),
          y(blocks.problem_.y ? blocks.problem_.num_classes : 0, blocks.cutting_.most_lanes()) {}
    Tile tile, y;
    Lanes lanes;
  };

  int64_t count() const { return cutting_.count(); }

  Sums forward(int64_t index, Scratch& scratch, float* losses) const {
    const Block block = cutting_.at(index);
    Lanes& lanes = scratch.lanes;
    Sums sums = math_.read(block, lanes);
    if (sums.is_wrong) return sums;
    load_tiles(block, scratch);
    if (problem_.labels)
      for (int64_t lane = 0; lane < block.num_lanes(); ++lane)
        lanes.at_label[lane] = *scratch.tile.at(lanes.label[lane], lane);
    with_rest(target_.rest, [&](auto rest) {
      for (int64_t lane = 0; lane < block.num_lanes(); lane += kGroup)
        math_.write_losses<rest>(lanes, lane, scratch.tile, scratch.y, ahead_of(index));
    });
    if (losses) std::copy_n(lanes.loss, block.num_lanes(), losses + block.i);
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t lane = 0; lane < block.num_lanes(); ++lane) total += lanes.loss[lane];
    sums.loss = total;
    return sums;
  }

  void backward(int64_t index, Scratch& scratch, const Incoming& incoming, T* gradient) const {
    const Block block = cutting_.at(index);
    Lanes& lanes = scratch.lanes;
    math_.read(block, lanes);
    load_tiles(block, scratch);
    if (incoming.is_each)
      for (int64_t lane = 0; lane < block.num_lanes(); ++lane)
        lanes.scale[lane] = incoming.scale(block.i + lane);
    else
      std::fill_n(lanes.scale, block.num_lanes(), incoming.scale(0));
    with_rest(target_.rest, [&](auto rest) {
      for (int64_t lane = 0; lane < block.num_lanes(); lane += kGroup)
        math_.write_gradient<rest>(lanes, lane, incoming.alpha, scratch.tile, scratch.y,
                                   ahead_of(index));
    });
    store_tile(scratch.tile, block, Array<T>(gradient, problem_));
  }

 private:
  void load_tiles(const Block& block, const Scratch& scratch) const {
    load_tile(z_, block, scratch.tile);
    if (problem_.y) load_tile(y_, block, scratch.y);
    const int64_t begin = block.num_lanes(), end = whole_groups(begin);
    for (int64_t c = 0; c < problem_.num_classes; ++c) {
      std::fill(scratch.tile.at(c, begin), scratch.tile.at(c, end), 0.0f);
      if (problem_.y) std::fill(scratch.y.at(c, begin), scratch.y.at(c, end), 0.0f);
    }
  }

  // Rows follow each other in memory, and the processor sees it by itself.
  Ahead ahead_of(int64_t index) const {
    if (z_.is_rows || index + 1 == count()) return {};
    const Block next = cutting_.at(index + 1);
    if (next.num_images > 1) return {};
    return {reinterpret_cast<const char*>(z_.at(next, 0, 0)),
            z_.class_stride * static_cast<int64_t>(sizeof(T)), sizeof(T)};
  }

  const Target& target_;
  const Problem& problem_;
  const Cutting cutting_;
  const LaneMath math_;
  Array<const T> z_;
  Array<const float> y_;
};

}  // namespace
