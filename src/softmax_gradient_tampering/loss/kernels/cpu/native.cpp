// Rows of the tampered cross-entropy on a CPU. The contract is that of reference.py.
//
// Legend: N rows, C classes; z logits, m the largest of a row; q the target distribution
// with the class weights multiplied in.
//
//     loss_i  = sum_c q_c (log sum_c exp(z_c - m) - (z_c - m))
//     grad_ic = scale_i (sum_c(q) exp(alpha (z_c - m)) / sum_c exp(alpha (z_c - m)) - q_c)
//
// q is a label's part, of one class a row, and a rest: of class indices the even share of the
// smoothing, w_c e / C; of class probabilities y all of it, w_c ((1 - e) y_c + e / C).
//
// A row is read in chunks that stay in the nearest cache; nothing of the size of the logits is
// made but the gradient. Half types are float32 from a chunk on. Sums are float32 within a chunk
// and double over chunks and rows, in an order that knows no threads: results are the same for
// any number of them.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <sys/mman.h>

namespace {

constexpr int64_t kChunk = 2048;           // float32 numbers: 8 KiB
constexpr int64_t kSerial = 1 << 15;       // logits up to which a second thread costs more
constexpr int64_t kHugePages = 1 << 22;    // bytes of a gradient from which page faults count

struct Bfloat16 {
  uint16_t bits;
};

inline float to_float(float x) { return x; }
inline float to_float(_Float16 x) { return static_cast<float>(x); }
inline float to_float(Bfloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

inline void round_to(float x, _Float16& result) { result = static_cast<_Float16>(x); }
inline void round_to(float x, Bfloat16& result) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, to even
  result.bits = static_cast<uint16_t>(x == x ? rounded : 0x7fc0);
}

// exp(x) for x <= 0, to about one unit in the last place; 0 below -87, where float32 ends.
// x = n log(2) + r with |r| <= log(2) / 2, and exp(r) by its series.
inline float exp_of(float x) {
  constexpr float kSmallest = -87.0f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float y = x < kSmallest ? kSmallest : x;
  const float shifted = y * 1.44269504088896341f + kRound;
  const float n = shifted - kRound;
  const float r = (y - n * 0.693145751953125f) - n * 1.42860682030941723e-6f;  // log(2) in two
  float series = 1.0f / 5040;
  series = series * r + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  uint32_t bits;  // n is in the low bits of `shifted`; into the exponent with it
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 127u) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return x < kSmallest ? 0.0f : series * power;
}

inline int64_t chunk_size(int64_t begin, int64_t end) {
  return end - begin < kChunk ? end - begin : kChunk;
}

inline const float* read_chunk(const float* z, int64_t, float*) { return z; }

template <typename T>
const float* read_chunk(const T* z, int64_t size, float* buffer) {
#pragma omp simd
  for (int64_t c = 0; c < size; ++c) buffer[c] = to_float(z[c]);
  return buffer;
}

template <typename T>
float largest(const T* z, int64_t num_classes) {
  float buffer[kChunk];
  float m = -INFINITY;
  for (int64_t begin = 0; begin < num_classes; begin += kChunk) {
    const int64_t size = chunk_size(begin, num_classes);
    const float* x = read_chunk(z + begin, size, buffer);
#pragma omp simd reduction(max : m)
    for (int64_t c = 0; c < size; ++c) m = x[c] > m ? x[c] : m;
  }
  return m;
}

float sum_of_exp(const float* x, int64_t size, float m, float alpha) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < size; ++c) sum += exp_of(alpha * (x[c] - m));
  return sum;
}

}  // namespace

extern "C" {

// As Problem of native_library.py.
struct Problem {
  const void* z;          // (N, C), contiguous within a row
  const int64_t* labels;  // (N,) class indices, or null
  const float* y;         // (N, C) contiguous class probabilities, or null
  const float* weight;    // (C,) class weights, or null
  int64_t num_rows, num_classes, row_stride, ignore_index;
  double label_smoothing;
  int32_t dtype;       // of z and its gradient: 0 float32, 1 bfloat16, 2 float16
  int32_t divides;     // whether the reduction is "mean"
  int32_t num_threads;
};

}  // extern "C"

namespace {

struct Target {
  explicit Target(const Problem& problem) : problem(problem) {
    even = static_cast<float>(problem.label_smoothing / problem.num_classes);
    keep = static_cast<float>(1 - problem.label_smoothing);
    has_rest = problem.y || problem.label_smoothing > 0;
    even_mass = 0;
    if (!problem.y && has_rest)
      for (int64_t c = 0; c < problem.num_classes; ++c)
        even_mass += even * (problem.weight ? problem.weight[c] : 1.0);
  }

  bool is_ignored(int64_t i) const {
    return problem.labels && problem.labels[i] == problem.ignore_index;
  }

  int64_t label(int64_t i) const { return problem.labels ? problem.labels[i] : -1; }

  // What row i counts in a mean of class indices.
  double row_weight(int64_t i) const {
    return problem.weight ? problem.weight[problem.labels[i]] : 1.0;
  }

  float label_mass(int64_t i) const {
    return problem.labels ? static_cast<float>((1 - problem.label_smoothing) * row_weight(i)) : 0;
  }

  // The rest of q over a chunk of classes.
  const float* rest(int64_t i, int64_t begin, int64_t size, float* buffer) const {
    if (problem.y) {
      const float* y = problem.y + i * problem.num_classes + begin;
#pragma omp simd
      for (int64_t c = 0; c < size; ++c) buffer[c] = keep * y[c] + even;
    } else {
      for (int64_t c = 0; c < size; ++c) buffer[c] = even;
    }
    if (problem.weight) {
      const float* weight = problem.weight + begin;
#pragma omp simd
      for (int64_t c = 0; c < size; ++c) buffer[c] *= weight[c];
    }
    return buffer;
  }

  // sum_c(q) of row i.
  double mass(int64_t i) const {
    if (!problem.y) return label_mass(i) + even_mass;
    float buffer[kChunk];
    double total = 0;
    for (int64_t begin = 0; begin < problem.num_classes; begin += kChunk) {
      const int64_t size = chunk_size(begin, problem.num_classes);
      const float* q = rest(i, begin, size, buffer);
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t c = 0; c < size; ++c) sum += q[c];
      total += sum;
    }
    return total;
  }

  const Problem& problem;
  float even, keep;
  bool has_rest;
  double even_mass;
};

template <typename T>
double row_loss(const Problem& problem, const Target& target, int64_t i) {
  if (target.is_ignored(i)) return 0;
  const T* z = static_cast<const T*>(problem.z) + i * problem.row_stride;
  const float m = largest(z, problem.num_classes);
  float z_buffer[kChunk], q_buffer[kChunk];
  double sum = 0, rest_of_loss = 0;
  for (int64_t begin = 0; begin < problem.num_classes; begin += kChunk) {
    const int64_t size = chunk_size(begin, problem.num_classes);
    const float* x = read_chunk(z + begin, size, z_buffer);
    sum += sum_of_exp(x, size, m, 1.0f);
    if (target.has_rest) {
      const float* q = target.rest(i, begin, size, q_buffer);
      float dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t c = 0; c < size; ++c) dot += q[c] * (x[c] - m);
      rest_of_loss += dot;
    }
  }
  double loss = target.mass(i) * std::log(sum) - rest_of_loss;
  if (problem.labels)
    loss -= static_cast<double>(target.label_mass(i)) * (to_float(z[problem.labels[i]]) - m);
  return loss;
}

template <typename T>
void store(const float* gradient, int64_t size, T* result) {
#pragma omp simd
  for (int64_t c = 0; c < size; ++c) round_to(gradient[c], result[c]);
}

inline void store(const float*, int64_t, float*) {}  // it was written in its place

inline float* place_of(float* result, float*) { return result; }

template <typename T>
float* place_of(T*, float* buffer) {
  return buffer;
}

template <typename T>
void row_gradient(const Problem& problem, const Target& target, int64_t i, float alpha,
                  double scale, T* result) {
  const int64_t num_classes = problem.num_classes;
  if (target.is_ignored(i)) {
    std::memset(static_cast<void*>(result), 0, num_classes * sizeof(T));
    return;
  }
  const T* z = static_cast<const T*>(problem.z) + i * problem.row_stride;
  const float m = largest(z, num_classes);
  float z_buffer[kChunk], q_buffer[kChunk], g_buffer[kChunk];
  double sum = 0;
  for (int64_t begin = 0; begin < num_classes; begin += kChunk) {
    const int64_t size = chunk_size(begin, num_classes);
    sum += sum_of_exp(read_chunk(z + begin, size, z_buffer), size, m, alpha);
  }
  const float factor = static_cast<float>(scale * target.mass(i) / sum);
  const float row_scale = static_cast<float>(scale);
  const float at_label = row_scale * target.label_mass(i);
  for (int64_t begin = 0; begin < num_classes; begin += kChunk) {
    const int64_t size = chunk_size(begin, num_classes);
    const float* x = read_chunk(z + begin, size, z_buffer);
    float* gradient = place_of(result + begin, g_buffer);
#pragma omp simd
    for (int64_t c = 0; c < size; ++c) gradient[c] = factor * exp_of(alpha * (x[c] - m));
    if (target.has_rest) {
      const float* q = target.rest(i, begin, size, q_buffer);
#pragma omp simd
      for (int64_t c = 0; c < size; ++c) gradient[c] -= row_scale * q[c];
    }
    const int64_t label = target.label(i) - begin;
    if (label >= 0 && label < size) gradient[label] -= at_label;
    store(gradient, size, result + begin);
  }
}

template <typename T>
void all_losses(const Problem& problem, float* losses) {
  const Target target(problem);
#pragma omp parallel for schedule(static) num_threads(problem.num_threads) \
    if (problem.num_rows * problem.num_classes > kSerial)
  for (int64_t i = 0; i < problem.num_rows; ++i)
    losses[i] = static_cast<float>(row_loss<T>(problem, target, i));
}

template <typename T>
void all_gradients(const Problem& problem, const float* grad_loss, int64_t grad_loss_stride,
                   double divisor, float alpha, T* gradient) {
#ifdef MADV_HUGEPAGE
  // Fresh memory comes page by page, and large pages come faster. A hint: it may be refused.
  const int64_t num_bytes = problem.num_rows * problem.num_classes * sizeof(T);
  if (num_bytes >= kHugePages) {
    const uintptr_t page = 4096, begin = reinterpret_cast<uintptr_t>(gradient);
    const uintptr_t first = (begin + page - 1) / page * page;
    madvise(reinterpret_cast<void*>(first), (begin + num_bytes) / page * page - first,
            MADV_HUGEPAGE);
  }
#endif
  const Target target(problem);
#pragma omp parallel for schedule(static) num_threads(problem.num_threads) \
    if (problem.num_rows * problem.num_classes > kSerial)
  for (int64_t i = 0; i < problem.num_rows; ++i)
    row_gradient(problem, target, i, alpha, grad_loss[i * grad_loss_stride] / divisor,
                 gradient + i * problem.num_classes);
}

}  // namespace

extern "C" {

// Losses of all rows, their sum or mean, and what the mean divides by (else 1).
// Returns the first row whose label is not a class, or -1; then nothing was written.
int64_t sgt_forward(const Problem* problem, float* losses, float* loss, float* divisor) {
  if (problem->labels)
    for (int64_t i = 0; i < problem->num_rows; ++i) {
      const int64_t label = problem->labels[i];
      if (label != problem->ignore_index && (label < 0 || label >= problem->num_classes)) return i;
    }
  if (problem->dtype == 0) all_losses<float>(*problem, losses);
  if (problem->dtype == 1) all_losses<Bfloat16>(*problem, losses);
  if (problem->dtype == 2) all_losses<_Float16>(*problem, losses);
  const Target target(*problem);
  double total = 0, weights = 0;
  for (int64_t i = 0; i < problem->num_rows; ++i) {
    total += losses[i];
    if (!problem->labels)
      weights += 1;
    else if (!target.is_ignored(i))
      weights += target.row_weight(i);
  }
  *divisor = problem->divides ? static_cast<float>(weights) : 1.0f;
  *loss = static_cast<float>(problem->divides ? total / weights : total);
  return -1;
}

// The gradient (N, C), contiguous. grad_loss is one number (stride 0) or one a row (stride 1).
void sgt_backward(const Problem* problem, const float* grad_loss, int64_t grad_loss_stride,
                  const float* divisor, double alpha, void* gradient) {
  const float a = static_cast<float>(alpha);
  const double d = *divisor;
  if (problem->dtype == 0)
    all_gradients(*problem, grad_loss, grad_loss_stride, d, a, static_cast<float*>(gradient));
  if (problem->dtype == 1)
    all_gradients(*problem, grad_loss, grad_loss_stride, d, a, static_cast<Bfloat16*>(gradient));
  if (problem->dtype == 2)
    all_gradients(*problem, grad_loss, grad_loss_stride, d, a, static_cast<_Float16*>(gradient));
}

}  // extern "C"
