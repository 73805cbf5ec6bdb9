// Images, and rows of few classes: positions side by side in vectors, which are of one class.

#pragma once

#include "lanes.h"
#include "tile.h"

namespace {

// What is computed of pieces: of whole groups, or with kVectors = 1 of what a vector holds or less.
class PieceMath : public LaneMath {
 public:
  explicit PieceMath(const Target& target)
      : LaneMath(target), target_(target), problem_(target.problem) {}

  template <Rest kRest, int kVectors>
  void write_losses(const Piece& piece, Lanes& lanes) const {
    Totals totals[kVectors];
    sum<kRest, kVectors, false>(piece, 1.0f, Strip<float>(), totals);
    for (int k = 0; k < kVectors; ++k) {
      const int64_t lane = piece.lane + k * kWidth;
      Floats at_label = {};
      if (kRest != Rest::kSoft) at_label = logits_at<kVectors>(load(lanes.label + lane), piece, k);
      LaneMath::write_losses<kRest>(lanes, lane, totals[k], at_label);
    }
  }

  // Write scale (sum_c(q) p' - q), which may be where the exponentials are.
  template <Rest kRest, int kVectors>
  void write_gradient(const Piece& piece, const Lanes& lanes, float alpha,
                      const Strip<float> gradient) const {
    Totals totals[kVectors];
    sum<kRest, kVectors, true>(piece, alpha, gradient, totals);
    Factors factors[kVectors];
    Ints label[kVectors], counts[kVectors];
    for (int k = 0; k < kVectors; ++k) {
      const int64_t lane = piece.lane + k * kWidth;
      factors[k] = LaneMath::factors<kRest>(lanes, lane, totals[k]);
      label[k] = load(lanes.label + lane);
      counts[k] = load(lanes.counts + lane);
    }
    const int64_t num_classes = problem_.num_classes;
    for (int64_t c = 0; c < num_classes; ++c)
      for (int k = 0; k < kVectors; ++k) {
        Floats g = factors[k].of_p * load(piece.tile.at(c) + k * kWidth);
        if (kRest != Rest::kNone)
          g -= factors[k].scale * rest_of_q<kRest, kVectors>(c, piece, k);
        if (kRest != Rest::kSoft)
          g -= label[k] == static_cast<int32_t>(c) ? factors[k].at_label : Floats{};
        g = zero_unless(counts[k], g);
        if (kVectors > 1)
          store(g, gradient.at(c) + k * kWidth);
        else
          store_some(g, piece.size, gradient.at(c));
      }
  }

 private:
  template <int kVectors>
  static Floats get(const float* from, int k, int64_t size) {
    return kVectors > 1 ? load(from + k * kWidth) : load_some(from, size, 0);
  }

  // As in Totals.
  struct Sum {
    Floats exp = {}, rest = {}, dot = {};
  };

  template <Rest kRest, int kVectors, bool kIsGradient>
  SGT_INLINE void sum(const Piece piece, float alpha, const Strip<float> gradient,
                      Totals (&totals)[kVectors]) const {
    constexpr int64_t kRun = 16;  // sums of so many classes are summed, which rounds less
    const int64_t num_classes = problem_.num_classes;
    const bool is_in_place = gradient.first != piece.tile.first;
    Floats m[kVectors];
    for (Floats& each : m) each = splat(-INFINITY);
    for (int64_t c = 0; c < num_classes; ++c)
      for (int k = 0; k < kVectors; ++k)
        m[k] = max_of(get<kVectors>(piece.z.at(c), k, piece.size), m[k]);
    Sum sums[kVectors];
    for (int64_t begin = 0; begin < num_classes; begin += kRun) {
      Sum runs[kVectors];
      for (int64_t c = begin; c < std::min(begin + kRun, num_classes); ++c) {
        piece.next_z.fetch(c);
        if (kRest == Rest::kSoft) piece.next_y.fetch(c);
        if (kIsGradient && is_in_place) fetch_group(gradient.at(c));  // to be written
        for (int k = 0; k < kVectors; ++k) {
          const Floats shifted = get<kVectors>(piece.z.at(c), k, piece.size) - m[k];
          const Floats e = exp_of(kIsGradient ? alpha * shifted : shifted);
          runs[k].exp += e;
          if (kIsGradient) store(e, piece.tile.at(c) + k * kWidth);
          if (kRest == Rest::kNone) continue;
          const Floats q = rest_of_q<kRest, kVectors>(c, piece, k);
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

  template <int kVectors>
  SGT_INLINE Floats logits_at(Ints label, const Piece& piece, int k) const {
    constexpr int64_t kFew = 8;  // classes of which looking at each takes less time
    Floats result = {};
    if (problem_.num_classes <= kFew) {
      for (int64_t c = 0; c < problem_.num_classes; ++c) {
        const Floats z = get<kVectors>(piece.z.at(c), k, piece.size);
        result = label == static_cast<int32_t>(c) ? z : result;
      }
    } else {
      const int size = kVectors > 1 ? kWidth : piece.size;
      float each[kWidth] = {};
      for (int j = 0; j < size; ++j) each[j] = piece.z.at(label[j])[k * kWidth + j];
      result = load(each);
    }
    return result;
  }

  template <Rest kRest, int kVectors>
  Floats rest_of_q(int64_t c, const Piece& piece, int k) const {
    if (kRest == Rest::kEven) return splat(target_.even[c]);
    const float weight = problem_.weight ? problem_.weight[c] : 1.0f;
    const Floats y = get<kVectors>(piece.y.at(c), k, piece.size);
    return static_cast<float>(target_.keep) * weight * y + target_.even[c];
  }

  const Target& target_;
  const Problem& problem_;
};

// Blocks of positions. Float32 images are computed where they are, a group at a time, whose
// exponentials are in a tile. All else is copied into the tile, which becomes its gradient and is
// copied out: half types, rows, images smaller than a group, and those of so many classes that a
// group of them is more than the nearest cache holds, and memory more than the next one.
template <typename T>
class LaneBlocks {
 public:
  explicit LaneBlocks(const Target& target)
      : target_(target),
        problem_(target.problem),
        is_copied_(!kIsFloat || problem_.num_positions < kGroup || is_vast(problem_)),
        cutting_(problem_, is_copied_),
        math_(target),
        z_(static_cast<const T*>(problem_.z), problem_),
        y_(problem_.y, problem_) {
    z_.image_stride = problem_.image_stride;
    z_.class_stride = problem_.class_stride;
  }

  struct Scratch {
    explicit Scratch(const LaneBlocks& blocks)
        : tile(blocks.problem_.num_classes, blocks.num_tile_lanes()),
          y(blocks.problem_.y ? blocks.problem_.num_classes : 0, blocks.num_tile_lanes()) {}
    Tile tile, y;
    Lanes lanes;
  };

  int64_t count() const { return cutting_.count(); }

  Sums forward(int64_t index, Scratch& scratch, float* losses) const {
    const Block block = cutting_.at(index);
    Lanes& lanes = scratch.lanes;
    Sums sums = math_.read(block.i, block.num_lanes(), lanes);
    if (sums.is_wrong) return sums;
    if (is_copied_) load_tiles(block, scratch);
    for_pieces(index, scratch, [&](auto rest, auto num_vectors, const Piece& piece) {
      math_.template write_losses<rest, num_vectors>(piece, lanes);
    });
    if (losses) std::copy_n(lanes.loss, block.num_lanes(), losses + block.i);
    sums.loss = math_.sum_of_losses(lanes, block.num_lanes());
    return sums;
  }

  void backward(int64_t index, Scratch& scratch, const Incoming& incoming, T* gradient) const {
    const Block block = cutting_.at(index);
    const Array<T> result(gradient, problem_);
    Lanes& lanes = scratch.lanes;
    math_.read(block.i, block.num_lanes(), lanes);
    math_.read_scales(incoming, block.i, block.num_lanes(), lanes);
    if (is_copied_) load_tiles(block, scratch);
    for_pieces(index, scratch, [&](auto rest, auto num_vectors, const Piece& piece) {
      Strip<float> to = piece.tile;
      if constexpr (kIsFloat)
        if (!is_copied_) to = result.from(block, piece.lane);
      math_.template write_gradient<rest, num_vectors>(piece, lanes, incoming.alpha, to);
    });
    if (is_copied_) store_tile(scratch.tile, block, result);
  }

 private:
  static constexpr bool kIsFloat = std::is_same_v<T, float>;

  static bool is_vast(const Problem& problem) {
    constexpr int64_t kNearest = 256, kCache = 1 << 18;  // in classes of a group, and in numbers
    return problem.num_classes > kNearest &&
           problem.num_classes * problem.num_positions > kCache;
  }

  int64_t num_tile_lanes() const { return is_copied_ ? cutting_.most_lanes() : kGroup; }

  // Call `f(rest, number of vectors, piece)`, the first two constants.
  template <typename F>
  void for_pieces(int64_t index, const Scratch& scratch, F f) const {
    constexpr std::integral_constant<int, kGroup / kWidth> kAll;
    const Block block = cutting_.at(index);
    const int64_t end = block.num_lanes();
    const int64_t* next_labels = problem_.labels ? problem_.labels + block.i + end : nullptr;
    int64_t lane = 0;
    with_rest(target_.rest, [&](auto rest) {
      if (is_copied_) {
        for (; lane < end; lane += kGroup) {
          fetch_labels(next_labels, lane);
          f(rest, kAll, piece_in_tile(index, lane, scratch));
        }
        return;
      }
      if constexpr (kIsFloat) {
        for (; lane + kGroup <= end; lane += kGroup) {
          fetch_labels(next_labels, lane);
          f(rest, kAll, piece_in_place(block, lane, kGroup, scratch));
        }
        for (; lane < end; lane += kWidth) {
          const int64_t size = std::min<int64_t>(end - lane, kWidth);
          f(rest, std::integral_constant<int, 1>(), piece_in_place(block, lane, size, scratch));
        }
      }
    });
  }

  // Those of a group of the next block, while one of this block is computed.
  static void fetch_labels(const int64_t* labels, int64_t lane) {
    if (!labels) return;
    fetch_group(labels + lane);
    fetch_group(labels + lane + kGroup / 2);
  }

  Piece piece_in_place(const Block& block, int64_t lane, int64_t size,
                       const Scratch& scratch) const {
    const Strip<const float> z = z_.from(block, lane);
    Piece piece{z, {}, scratch.tile.from(0), Ahead(z), {}, lane, size};
    if (problem_.y) {
      piece.y = y_.from(block, lane);
      piece.next_y = Ahead(piece.y);
    }
    return piece;
  }

  Piece piece_in_tile(int64_t index, int64_t lane, const Scratch& scratch) const {
    const Strip<float> z = scratch.tile.from(lane), y = scratch.y.from(lane);
    Piece piece{{z.first, z.stride}, {y.first, y.stride}, z, {}, {}, lane, kGroup};
    if (index + 1 == count()) return piece;
    const Block next = cutting_.at(index + 1);
    if (!z_.is_rows && next.num_images > 1) return piece;  // images do not follow each other
    piece.next_z = Ahead(z_, next, lane);
    if (problem_.y) piece.next_y = Ahead(y_, next, lane);
    return piece;
  }

  void load_tiles(const Block& block, const Scratch& scratch) const {
    load_tile(z_, block, scratch.tile);
    if (problem_.y) load_tile(y_, block, scratch.y);
    const int64_t begin = block.num_lanes(), end = whole_groups(begin);
    for (int64_t c = 0; c < problem_.num_classes; ++c) {
      std::fill(scratch.tile.at(c, begin), scratch.tile.at(c, end), 0.0f);
      if (problem_.y) std::fill(scratch.y.at(c, begin), scratch.y.at(c, end), 0.0f);
    }
  }

  const Target& target_;
  const Problem& problem_;
  const bool is_copied_;
  const Cutting cutting_;
  const PieceMath math_;
  Array<const T> z_;
  Array<const float> y_;
};

}  // namespace
