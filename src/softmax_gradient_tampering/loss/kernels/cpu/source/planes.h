// Images, and rows of few classes: positions side by side in vectors, which are of one class.

#pragma once

#include "lanes.h"
#include "tile.h"

namespace {

// Where some of the next block's numbers are in memory, which are fetched while this block is
// computed; or nowhere.
struct Ahead {
  Ahead() = default;

  template <typename T>
  Ahead(const Array<T>& array, const Block& block)
      : first(reinterpret_cast<const char*>(array.at(block, 0, 0))),
        class_bytes((array.is_rows ? kGroup : array.class_stride) * sizeof(T)),
        lane_bytes((array.is_rows ? array.image_stride : 1) * sizeof(T)),
        num_bytes(kGroup * sizeof(T)) {}

  // Of each group of lanes as many for every class: of rows the next of any class.
  void fetch(int64_t c, int64_t lane) const {
    if (!first) return;
    const char* at = first + c * class_bytes + lane * lane_bytes;
    for (int64_t byte = 0; byte < num_bytes; byte += 64) __builtin_prefetch(at + byte);
  }

  const char* first = nullptr;
  int64_t class_bytes = 0, lane_bytes = 0, num_bytes = 0;
};

// The tiles of a block's logits and of its class probabilities, if there are any.
struct TileScratch {
  TileScratch(const Problem& problem, int64_t most_lanes)
      : tile(problem.num_classes, most_lanes), y(problem.y ? problem.num_classes : 0, most_lanes) {}
  Tile tile, y;
  Lanes lanes;
};

// What is fetched while a block is computed.
struct Next {
  Ahead z, y;
  const int64_t* labels = nullptr;
};

// What is computed of a block, in its tiles.
class TileMath : public LaneMath {
 public:
  explicit TileMath(const Target& target)
      : LaneMath(target), target_(target), problem_(target.problem) {}

  void write_losses(TileScratch& scratch, int64_t num_lanes, const Next& next) const {
    with_rest(target_.rest, [&](auto rest) {
      for (int64_t lane = 0; lane < num_lanes; lane += kGroup)
        write_some_losses<rest>(scratch, lane, next);
    });
  }

  // The tile becomes the gradient, scale (sum_c(q) p' - q).
  void write_gradient(TileScratch& scratch, int64_t num_lanes, float alpha,
                      const Next& next) const {
    with_rest(target_.rest, [&](auto rest) {
      for (int64_t lane = 0; lane < num_lanes; lane += kGroup)
        write_some_gradients<rest>(scratch, lane, alpha, next);
    });
  }

 private:
  static constexpr int kVectors = kGroup / kWidth;

  template <Rest kRest>
  void write_some_losses(TileScratch& scratch, int64_t first, const Next& next) const {
    Totals totals[kVectors];
    sum<kRest, false>(scratch, first, 1.0f, next, totals);
    for (int k = 0; k < kVectors; ++k) {
      const int64_t lane = first + k * kWidth;
      Floats at_label = {};
      if (kRest != Rest::kSoft) at_label = logits_at(load(scratch.lanes.label + lane), scratch, lane);
      LaneMath::write_losses<kRest>(scratch.lanes, lane, totals[k], at_label);
    }
  }

  Floats logits_at(Ints label, const TileScratch& scratch, int64_t lane) const {
    constexpr int64_t kFew = 8;  // classes of which looking at each takes less time
    Floats result = {};
    if (problem_.num_classes <= kFew)
      for (int64_t c = 0; c < problem_.num_classes; ++c)
        result = label == static_cast<int32_t>(c) ? load(scratch.tile.at(c, lane)) : result;
    else
      for (int j = 0; j < kWidth; ++j) result[j] = *scratch.tile.at(label[j], lane + j);
    return result;
  }

  template <Rest kRest>
  void write_some_gradients(TileScratch& scratch, int64_t first, float alpha, const Next& next) const {
    Totals totals[kVectors];
    sum<kRest, true>(scratch, first, alpha, next, totals);
    Factors factors[kVectors];
    Ints label[kVectors], counts[kVectors];
    for (int k = 0; k < kVectors; ++k) {
      const int64_t lane = first + k * kWidth;
      factors[k] = LaneMath::factors<kRest>(scratch.lanes, lane, totals[k]);
      label[k] = load(scratch.lanes.label + lane);
      counts[k] = load(scratch.lanes.counts + lane);
    }
    for (int64_t c = 0; c < problem_.num_classes; ++c)
      for (int k = 0; k < kVectors; ++k) {
        float* at = scratch.tile.at(c, first + k * kWidth);
        Floats gradient = factors[k].of_p * load(at);
        if (kRest != Rest::kNone)
          gradient -= factors[k].scale * rest_of_q<kRest>(c, scratch.y.at(c, first + k * kWidth));
        if (kRest != Rest::kSoft)
          gradient -= label[k] == static_cast<int32_t>(c) ? factors[k].at_label : Floats{};
        store(zero_unless(counts[k], gradient), at);
      }
  }

  // As in Totals.
  struct Sum {
    Floats exp = {}, rest = {}, dot = {};
  };

  template <Rest kRest, bool kIsGradient>
  void sum(const TileScratch& scratch, int64_t first, float alpha, const Next& next,
           Totals (&totals)[kVectors]) const {
    constexpr int64_t kRun = 16;  // sums of so many classes are summed, which rounds less
    const int64_t num_classes = problem_.num_classes;
    Floats m[kVectors];
    for (Floats& each : m) each = splat(-INFINITY);
    if (next.labels)
      for (int lane = 0; lane < kGroup; lane += 8) __builtin_prefetch(next.labels + first + lane);
    for (int64_t c = 0; c < num_classes; ++c)
      for (int k = 0; k < kVectors; ++k)
        m[k] = max_of(load(scratch.tile.at(c, first + k * kWidth)), m[k]);
    Sum sums[kVectors];
    for (int64_t begin = 0; begin < num_classes; begin += kRun) {
      Sum runs[kVectors];
      for (int64_t c = begin; c < std::min(begin + kRun, num_classes); ++c) {
        next.z.fetch(c, first);
        if (kRest == Rest::kSoft) next.y.fetch(c, first);
        for (int k = 0; k < kVectors; ++k) {
          float* at = scratch.tile.at(c, first + k * kWidth);
          const Floats shifted = load(at) - m[k];
          const Floats e = exp_of(kIsGradient ? alpha * shifted : shifted);
          runs[k].exp += e;
          if (kIsGradient) store(e, at);
          if (kRest == Rest::kNone) continue;
          const Floats q = rest_of_q<kRest>(c, scratch.y.at(c, first + k * kWidth));
          if (kRest == Rest::kSoft) runs[k].rest += q;
          if (!kIsGradient) runs[k].dot += q * shifted;
        }
      }
      for (int k = 0; k < kVectors; ++k) {
        sums[k].exp += runs[k].exp;
        sums[k].rest += runs[k].rest;
        sums[k].dot += runs[k].dot;
      }
    }
    for (int k = 0; k < kVectors; ++k) {
      float sum[kWidth];
      store(sums[k].exp, sum);
      for (int j = 0; j < kWidth; ++j) totals[k].sum[j] = sum[j];
      totals[k].largest = m[k];
      totals[k].rest = sums[k].rest;
      totals[k].dot = sums[k].dot;
    }
  }

  template <Rest kRest>
  Floats rest_of_q(int64_t c, const float* y) const {
    if (kRest == Rest::kEven) return splat(target_.even[c]);
    const float weight = problem_.weight ? problem_.weight[c] : 1.0f;
    return static_cast<float>(target_.keep) * weight * load(y) + target_.even[c];
  }

  const Target& target_;
  const Problem& problem_;
};

// Blocks of positions, each copied into a tile, which becomes its gradient and is copied out.
template <typename T>
class TileBlocks {
 public:
  explicit TileBlocks(const Target& target)
      : problem_(target.problem),
        cutting_(problem_),
        math_(target),
        z_(static_cast<const T*>(problem_.z), problem_),
        y_(problem_.y, problem_) {
    z_.image_stride = problem_.image_stride;
    z_.class_stride = problem_.class_stride;
  }

  struct Scratch : TileScratch {
    explicit Scratch(const TileBlocks& blocks)
        : TileScratch(blocks.problem_, blocks.cutting_.most_lanes()) {}
  };

  int64_t count() const { return cutting_.count(); }

  Sums forward(int64_t index, Scratch& scratch, float* losses) const {
    const Block block = cutting_.at(index);
    Lanes& lanes = scratch.lanes;
    Sums sums = math_.read(block.i, block.num_lanes(), lanes);
    if (sums.is_wrong) return sums;
    load_tiles(block, scratch);
    math_.write_losses(scratch, block.num_lanes(), next_of(index));
    if (losses) std::copy_n(lanes.loss, block.num_lanes(), losses + block.i);
    sums.loss = math_.sum_of_losses(lanes, block.num_lanes());
    return sums;
  }

  void backward(int64_t index, Scratch& scratch, const Incoming& incoming, T* gradient) const {
    const Block block = cutting_.at(index);
    Lanes& lanes = scratch.lanes;
    math_.read(block.i, block.num_lanes(), lanes);
    math_.read_scales(incoming, block.i, block.num_lanes(), lanes);
    load_tiles(block, scratch);
    math_.write_gradient(scratch, block.num_lanes(), incoming.alpha, next_of(index));
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

  Next next_of(int64_t index) const {
    Next result;
    if (index + 1 == count()) return result;
    const Block block = cutting_.at(index + 1);
    if (problem_.labels) result.labels = problem_.labels + block.i;
    if (!z_.is_rows && block.num_images > 1) return result;  // images do not follow each other
    result.z = Ahead(z_, block);
    if (problem_.y) result.y = Ahead(y_, block);
    return result;
  }

  const Problem& problem_;
  const Cutting cutting_;
  const TileMath math_;
  Array<const T> z_;
  Array<const float> y_;
};

}  // namespace
