// The tampered cross-entropy on a CPU. The contract is that of reference.py.
//
// Legend: N images of P positions (a row of logits is an image of one position), C classes; z
// logits, m the largest of a position; q the target distribution with the class weights
// multiplied in.
//
//     loss_i  = sum_c q_c (log sum_c exp(z_c - m) - (z_c - m))
//     grad_ic = scale_i (sum_c(q) exp(alpha (z_c - m)) / sum_c exp(alpha (z_c - m)) - q_c)
//
// Positions are taken in blocks that stay in the cache; nothing of the size of the logits is made
// but the gradient. Half types are float32 inside. How positions are cut into blocks, and in which
// order numbers are summed, knows no threads: results are the same for any number of them.

#include <sys/mman.h>

#include "classes.h"
#include "planes.h"
#include "products.h"
#include "rows.h"

namespace {

constexpr int64_t kManyClasses = 48;         // so many, and a row fills vectors of its own
constexpr int64_t kSerial = 1 << 15;         // logits up to which a second thread costs more
constexpr int64_t kSerialProduct = 1 << 18;  // multiplications, likewise
constexpr int64_t kHugePages = 1 << 21;      // bytes of a gradient from which page faults count

// `f(i, scratch)` of some blocks. It is compiled once: two copies of the same expressions may round
// differently, and then results would depend on the number of threads.
template <typename Blocks, typename F>
__attribute__((noinline, noclone)) void run_blocks(const Blocks& blocks, int64_t begin, int64_t end,
                                                   const F& f) {
  typename Blocks::Scratch scratch(blocks);
  for (int64_t i = begin; i < end; ++i) f(i, scratch);
}

// Of every block; of few logits without OpenMP, which takes as long as they do.
template <typename Blocks, typename F>
void for_blocks(const Blocks& blocks, const Problem& problem, const F& f) {
  const int64_t count = blocks.count(), parts = problem.num_threads;
  if (parts == 1 || num_logits(problem) <= kSerial) return run_blocks(blocks, 0, count, f);
#pragma omp parallel for schedule(static) num_threads(problem.num_threads)
  for (int64_t part = 0; part < parts; ++part)
    run_blocks(blocks, count * part / parts, count * (part + 1) / parts, f);
}

template <typename Blocks>
Sums all_losses(const Blocks& blocks, const Problem& problem, float* losses) {
  std::vector<Sums> sums(blocks.count());
  for_blocks(blocks, problem, [&](int64_t i, auto& scratch) {
    sums[i] = blocks.forward(i, scratch, losses);
  });
  Sums total;
  for (const Sums& each : sums) {
    total.loss += each.loss;
    total.weight += each.weight;
    total.is_wrong |= each.is_wrong;
  }
  return total;
}

template <typename Blocks, typename T>
void all_gradients(const Blocks& blocks, const Problem& problem, const Incoming& incoming,
                   T* gradient) {
#ifdef MADV_HUGEPAGE
  // Fresh memory comes page by page, and large pages come faster. A hint: it may be refused.
  const int64_t num_bytes = num_logits(problem) * sizeof(T);
  if (num_bytes >= kHugePages) {
    // To whole pages outwards: memory may begin a few bytes into a large page.
    const uintptr_t page = 4096, begin = reinterpret_cast<uintptr_t>(gradient) / page * page;
    const uintptr_t end = reinterpret_cast<uintptr_t>(gradient) + num_bytes;
    madvise(reinterpret_cast<void*>(begin), (end - begin + page - 1) / page * page, MADV_HUGEPAGE);
  }
#endif
  for_blocks(blocks, problem, [&](int64_t i, auto& scratch) {
    blocks.backward(i, scratch, incoming, gradient);
  });
}

bool has_many_classes(const Problem& problem) {
  return problem.num_positions == 1 && problem.num_classes >= kManyClasses;
}

template <typename T>
Sums forward(const Problem& problem, float* losses) {
  const Target target(problem);
  if (has_many_classes(problem)) return all_losses(RowBlocks<T>(target), problem, losses);
  return all_losses(LaneBlocks<T>(target), problem, losses);
}

template <typename T>
void backward(const Problem& problem, const Incoming& incoming, void* gradient) {
  const Target target(problem);
  if (has_many_classes(problem))
    all_gradients(RowBlocks<T>(target), problem, incoming, static_cast<T*>(gradient));
  else
    all_gradients(LaneBlocks<T>(target), problem, incoming, static_cast<T*>(gradient));
}

}  // namespace

extern "C" {

// Losses of all positions (unless null), their sum or mean, and what the mean divides by (else 1).
// Returns the first position whose label is not a class, or -1.
int64_t sgt_forward(const Problem* problem, float* losses, float* loss, float* divisor) {
  Sums total;
  if (problem->dtype == 0) total = forward<float>(*problem, losses);
  if (problem->dtype == 1) total = forward<Bfloat16>(*problem, losses);
  if (problem->dtype == 2) total = forward<_Float16>(*problem, losses);
  if (total.is_wrong) {
    int64_t i = 0;
    for (const Target target(*problem); !target.is_wrong(i);) ++i;
    return i;
  }
  *divisor = problem->divides ? static_cast<float>(total.weight) : 1.0f;
  *loss = static_cast<float>(problem->divides ? total.loss / total.weight : total.loss);
  return -1;
}

// The gradient, contiguous. grad_loss is one number (stride 0) or one a position (stride 1).
void sgt_backward(const Problem* problem, const float* grad_loss, int64_t grad_loss_stride,
                  const float* divisor, double alpha, void* gradient) {
  const Incoming incoming{grad_loss, grad_loss_stride > 0, *divisor, static_cast<float>(alpha)};
  if (problem->dtype == 0) backward<float>(*problem, incoming, gradient);
  if (problem->dtype == 1) backward<Bfloat16>(*problem, incoming, gradient);
  if (problem->dtype == 2) backward<_Float16>(*problem, incoming, gradient);
}

// Add the logits of a block to the rows' sums.
void sgt_add_classes(const ClassBlock* block, double alpha, const RowSums* sums) {
  const RowsOfBlock rows(*block);
#pragma omp parallel for schedule(static) num_threads(block->num_threads) \
    if (block->num_rows * block->size > kSerial)
  for (int64_t row = 0; row < block->num_rows; ++row)
    if (!rows.is_ignored(row)) rows.add(row, static_cast<float>(alpha), *sums);
}

// The gradient of a block's logits (N, size), which may be in their place. Of every row (N,): the
// largest logit m, what exp(alpha (z - m)) is multiplied by, and what is subtracted at the label.
void sgt_write_classes(const ClassBlock* block, double alpha, const float* largest,
                       const float* factor, const float* at_label, float* gradient) {
  const RowsOfBlock rows(*block);
#pragma omp parallel for schedule(static) num_threads(block->num_threads) \
    if (block->num_rows * block->size > kSerial)
  for (int64_t row = 0; row < block->num_rows; ++row) {
    float* to = gradient + row * block->size;
    if (rows.is_ignored(row))
      std::fill_n(to, block->size, 0.0f);
    else
      rows.write_gradient(row, static_cast<float>(alpha), largest[row], factor[row],
                          at_label[row], to);
  }
}

// `to`, of adjacent columns, becomes the product of the matrices, or grows by it.
void sgt_multiply(const Matrix* left, const Matrix* right, int32_t adds, const Matrix* to,
                  int32_t num_threads) {
  const int64_t num_products = left->num_rows * left->num_columns * right->num_columns;
  const int64_t parts = num_products > kSerialProduct ? num_threads : 1;
#pragma omp parallel for schedule(static) num_threads(num_threads) if (parts > 1)
  for (int64_t part = 0; part < parts; ++part) multiply_part(*left, *right, adds, *to, part, parts);
}

}  // extern "C"
