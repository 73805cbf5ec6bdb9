"""The device code of `loss.linear` on a GPU: what is done to a block of classes of all rows.

One pass a block each way. A block is float32 logits (rows, num_block) without the bias, which
is added here, of the classes from first_class on. sums holds `NUM_SUMS` numbers of every row, each
number of all rows in turn, and relative to the largest logit so far where that matters. Upper-case
arguments are known when a kernel is compiled.
"""

import triton
import triton.language as tl

from softmax_gradient_tampering.loss.kernels.triton.targets import (
    LOG2_E,
    label_of,
    spread_target,
)

# largest logit, sum exp(z - m), sum exp(alpha (z - m)), sum of q but for the label's part, the
# same times z - m, the label's logit
NUM_SUMS = 6
# So small that exp of it is 0; it and its products are numbers, so that 0 times them is 0.
LEAST = tl.constexpr(-1.0e38)


@triton.jit(
    do_not_specialize=["num_rows", "first_class"],
    do_not_specialize_on_alignment=["alpha", "sums"],
)
def add_block_kernel(
    z,
    bias,
    target,
    alpha,
    weight,
    sums,
    num_rows,
    num_block,
    first_class,
    num_classes,
    target_stride,
    smoothing,
    ALPHA_IS_POINTER: tl.constexpr,
    IS_SOFT: tl.constexpr,
    IS_WEIGHTED: tl.constexpr,
    IS_SMOOTHED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add a block to the sums of a row."""
    row = tl.program_id(0).to(tl.int64)
    exponent = tl.load(alpha).to(tl.float32) if ALPHA_IS_POINTER else alpha
    z_row, sums, target_row = z + row * num_block, sums + row, target
    if IS_SOFT:
        target_row = target + row * target_stride
    maximum = tl.load(sums)
    exp_sum = tl.load(sums + num_rows)
    tampered_sum = tl.load(sums + 2 * num_rows)
    q_sum = tl.load(sums + 3 * num_rows)
    q_logits = tl.load(sums + 4 * num_rows)
    for start in range(0, num_block, BLOCK):
        places = start + tl.arange(0, BLOCK)
        mask = places < num_block
        logits, classes = _logits(z_row, bias, places, first_class, mask)
        new_maximum = tl.maximum(maximum, tl.max(logits, 0))
        shift = tl.maximum(maximum - new_maximum, LEAST)
        distance = logits - new_maximum
        exp_sum = exp_sum * tl.exp2(shift * LOG2_E) + tl.sum(tl.exp2(distance * LOG2_E), 0)
        tampered = tl.exp2(exponent * (distance * LOG2_E))
        tampered = tl.where(logits == float("-inf"), 0.0, tampered)
        tampered_sum = tampered_sum * tl.exp2(exponent * (shift * LOG2_E)) + tl.sum(tampered, 0)
        if IS_SOFT or IS_SMOOTHED:
            q = spread_target(
                target_row, weight, classes, classes, mask, num_classes, smoothing,
                IS_SOFT, IS_WEIGHTED, IS_SMOOTHED,
            )  # fmt: skip
            q_logits += q_sum * shift + tl.sum(tl.where(mask, q * distance, 0.0), 0)
            q_sum += tl.sum(q, 0)
        maximum = new_maximum
    tl.store(sums, maximum)
    tl.store(sums + num_rows, exp_sum)
    tl.store(sums + 2 * num_rows, tampered_sum)
    if IS_SOFT or IS_SMOOTHED:
        tl.store(sums + 3 * num_rows, q_sum)
        tl.store(sums + 4 * num_rows, q_logits)
    if not IS_SOFT:
        label = tl.load(target + row * target_stride)
        place = label - first_class
        is_here = (place >= 0) & (place < num_block)
        at_label = tl.load(z_row + tl.where(is_here, place, 0))
        if bias is not None:
            at_label += tl.load(bias + tl.where(is_here, label, 0)).to(tl.float32)
        tl.store(sums + 5 * num_rows, at_label, is_here)


@triton.jit(
    do_not_specialize=["first_class", "scale_stride"],
    do_not_specialize_on_alignment=["alpha", "largest", "log_sum", "mass", "scale"],
)
def block_gradient_kernel(
    z,
    bias,
    target,
    alpha,
    weight,
    largest,
    log_sum,
    mass,
    scale,
    scale_stride,
    grad,
    num_block,
    first_class,
    num_classes,
    target_stride,
    ignore_index,
    smoothing,
    ALPHA_IS_POINTER: tl.constexpr,
    IS_SOFT: tl.constexpr,
    IS_WEIGHTED: tl.constexpr,
    IS_SMOOTHED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """scale * (sum_c(q) p' - q) of a part of a row of the block."""
    num_parts = tl.cdiv(num_block, BLOCK)
    row = (tl.program_id(0) // num_parts).to(tl.int64)
    places = (tl.program_id(0) % num_parts) * BLOCK + tl.arange(0, BLOCK)
    mask = places < num_block
    exponent = tl.load(alpha).to(tl.float32) if ALPHA_IS_POINTER else alpha
    logits, classes = _logits(z + row * num_block, bias, places, first_class, mask)
    distance = exponent * (logits - tl.load(largest + row)) - tl.load(log_sum + row)
    p = tl.where(logits == float("-inf"), 0.0, tl.exp2(distance * LOG2_E))
    difference = tl.load(mass + row) * p
    if IS_SOFT or IS_SMOOTHED:
        target_row = target
        if IS_SOFT:
            target_row = target + row * target_stride
        difference -= spread_target(
            target_row, weight, classes, classes, mask, num_classes, smoothing,
            IS_SOFT, IS_WEIGHTED, IS_SMOOTHED,
        )  # fmt: skip
    if not IS_SOFT:
        first = tl.zeros([1], tl.int64)
        label, _, row_weight = label_of(
            target, weight, row + first, first == 0, num_classes, target_stride, ignore_index,
            IS_WEIGHTED, False,
        )  # fmt: skip
        difference -= tl.where(classes == label, row_weight * (1.0 - smoothing), 0.0)
    gradient = tl.load(scale + row * scale_stride) * difference
    tl.store(grad + row * num_block + places, gradient, mask)


@triton.jit
def _logits(z_row, bias, places, first_class, mask):
    """Logits of a part of a row, -inf where there is none, and their classes."""
    classes = first_class + places
    logits = tl.load(z_row + places, mask, other=float("-inf"))
    if bias is not None:
        logits += tl.load(bias + classes, mask, other=0.0).to(tl.float32)
    return logits, classes
