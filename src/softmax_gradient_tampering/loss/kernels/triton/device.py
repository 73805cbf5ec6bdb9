"""The device code of `triton`: pointers and numbers in, one block of rows and classes a program.

Legend: weight is the class weights; stats is laid out as in `triton`, scratch as in `sums`. Logits
are rows of adjacent classes, or (IS_IMAGES) images of num_positions adjacent positions, of which
each is a row whose classes are a stride apart. Lengths and strides along the memory are in vectors
of VECTOR elements: the compiler then knows what divides them, and reads and writes 128 bits at
once where that is 8 half numbers. Upper-case arguments are known when a kernel is compiled.
"""

import triton
import triton.language as tl

from softmax_gradient_tampering.loss.kernels.triton.sums import sum_in_last_block
from softmax_gradient_tampering.loss.kernels.triton.targets import (
    LN_2,
    LOG2_E,
    label_of,
    spread_target,
)


# The number of rows changes from call to call, and nothing is faster for knowing what divides it.
@triton.jit(do_not_specialize=["num_rows"], do_not_specialize_on_alignment=["alpha"])
def forward_kernel(
    z,
    target,
    alpha,
    weight,
    stats,
    scratch,
    loss,
    num_rows,
    num_classes,
    num_positions,
    z_stride,
    z_class_stride,
    target_stride,
    target_class_stride,
    ignore_index,
    smoothing,
    VECTOR: tl.constexpr,
    IS_IMAGES: tl.constexpr,
    ALPHA_IS_POINTER: tl.constexpr,
    IS_SOFT: tl.constexpr,
    IS_WEIGHTED: tl.constexpr,
    IS_SMOOTHED: tl.constexpr,
    REDUCTION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CLASSES: tl.constexpr,
):
    """The loss of BLOCK_ROWS rows, one block of classes after the other."""
    num_classes, num_positions = _lengths(num_classes, num_positions, VECTOR, IS_IMAGES)
    rows, is_row, outer, position = _rows(
        tl.program_id(0), num_rows, num_positions, BLOCK_ROWS, IS_IMAGES
    )
    z_rows = z + outer * (z_stride * VECTOR) + position
    target_rows = target
    if IS_SOFT:
        target_rows = (target + outer * (target_stride * VECTOR) + position)[:, None]
    exponent = tl.load(alpha).to(tl.float32) if ALPHA_IS_POINTER else alpha
    minus_inf = float("-inf")
    maximum = tl.full([BLOCK_ROWS], minus_inf, tl.float32)
    origin = tl.zeros([BLOCK_ROWS], tl.float32)
    # Sums are kept for every place in the block, and added up over the places at the end.
    exp_sum = tl.zeros([BLOCK_ROWS, BLOCK_CLASSES], tl.float32)
    tampered_sum = tl.zeros([BLOCK_ROWS, BLOCK_CLASSES], tl.float32)
    q_sum = tl.zeros([BLOCK_ROWS, BLOCK_CLASSES], tl.float32)
    q_logits = tl.zeros([BLOCK_ROWS, BLOCK_CLASSES], tl.float32)
    for start in range(0, num_classes, BLOCK_CLASSES):
        classes = start + tl.arange(0, BLOCK_CLASSES)
        mask = is_row[:, None] & (classes < num_classes)[None, :]
        offsets = _offsets(classes, z_class_stride, VECTOR, IS_IMAGES)
        logits = tl.load(z_rows[:, None] + offsets[None, :], mask, other=minus_inf)
        logits = logits.to(tl.float32)
        new_maximum = tl.maximum(maximum, tl.max(logits, 1))
        # A row of -inf so far: exp(-inf - 0) is 0, exp(-inf + inf) would be nan.
        base = tl.where(new_maximum == minus_inf, 0.0, new_maximum)
        shrink = (maximum - base) * LOG2_E
        distance = (logits - base[:, None]) * LOG2_E
        exp_sum = exp_sum * tl.exp2(shrink)[:, None] + tl.exp2(distance)
        shrink = tl.where(maximum == minus_inf, 0.0, tl.exp2(exponent * shrink))
        tampered = tl.where(logits == minus_inf, 0.0, tl.exp2(exponent * distance))
        tampered_sum = tampered_sum * shrink[:, None] + tampered
        maximum = new_maximum
        if IS_SOFT or IS_SMOOTHED:
            offsets = _offsets(classes, target_class_stride, VECTOR, IS_IMAGES)
            q = spread_target(
                target_rows, weight, classes[None, :], offsets[None, :], mask, num_classes,
                smoothing, IS_SOFT, IS_WEIGHTED, IS_SMOOTHED,
            )  # fmt: skip
            origin = tl.where(start == 0, base, origin)
            q_sum += q
            q_logits += tl.where(mask, q * (logits - origin[:, None]), 0.0)
    log_sum = maximum + tl.log2(tl.sum(exp_sum, 1)) * LN_2
    total = tl.zeros([BLOCK_ROWS], tl.float32)
    losses = tl.zeros([BLOCK_ROWS], tl.float32)
    row_weight = tl.full([BLOCK_ROWS], 1.0, tl.float32)
    if IS_SOFT or IS_SMOOTHED:
        total = tl.sum(q_sum, 1)
        losses = total * (log_sum - origin) - tl.sum(q_logits, 1)
    if not IS_SOFT:
        label, is_counted, row_weight = label_of(
            target, weight, rows, is_row, num_classes, target_stride, ignore_index,
            IS_WEIGHTED, True,
        )  # fmt: skip
        offsets = _offsets(label, z_class_stride, VECTOR, IS_IMAGES)
        at_label = tl.load(z_rows + offsets, is_row, other=0.0).to(tl.float32)
        confidence = row_weight * (1.0 - smoothing)
        losses = tl.where(is_counted, losses + confidence * (log_sum - at_label), 0.0)
        total = tl.where(is_counted, total + confidence, 0.0)
    tl.store(stats + rows, maximum, is_row)
    tl.store(stats + num_rows + rows, 1.0 / tl.sum(tampered_sum, 1), is_row)
    stats += 2 * num_rows
    if IS_SOFT or IS_SMOOTHED:
        tl.store(stats + rows, total, is_row)
        stats += num_rows
    if REDUCTION == "none":
        tl.store(loss + rows, losses, is_row)
    else:
        loss_sum = tl.sum(tl.where(is_row, losses, 0.0), 0)
        weight_sum = tl.sum(tl.where(is_row, row_weight, 0.0), 0)
        sum_in_last_block(loss_sum, weight_sum, scratch, loss, stats, REDUCTION == "mean", False)


@triton.jit(
    do_not_specialize=["num_rows", "grad_loss_stride"],
    do_not_specialize_on_alignment=["alpha", "grad_loss"],
)
def backward_kernel(
    z,
    target,
    alpha,
    weight,
    stats,
    grad_loss,
    grad_loss_stride,
    grad,
    num_rows,
    num_classes,
    num_positions,
    z_stride,
    z_class_stride,
    target_stride,
    target_class_stride,
    ignore_index,
    smoothing,
    VECTOR: tl.constexpr,
    IS_IMAGES: tl.constexpr,
    ALPHA_IS_POINTER: tl.constexpr,
    IS_SOFT: tl.constexpr,
    IS_WEIGHTED: tl.constexpr,
    IS_SMOOTHED: tl.constexpr,
    REDUCTION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CLASSES: tl.constexpr,
):
    """The gradient of one block: scale * (sum_c(q) p' - q)."""
    write_gradient(
        tl.program_id(0),
        z, target, alpha, weight, stats, grad_loss, grad_loss_stride, grad, num_rows,
        num_classes, num_positions, z_stride, z_class_stride, target_stride,
        target_class_stride, ignore_index, smoothing, VECTOR, IS_IMAGES, ALPHA_IS_POINTER,
        IS_SOFT, IS_WEIGHTED, IS_SMOOTHED, REDUCTION, BLOCK_ROWS, BLOCK_CLASSES,
    )  # fmt: skip


@triton.jit
def write_gradient(
    block,
    z,
    target,
    alpha,
    weight,
    stats,
    grad_loss,
    grad_loss_stride,
    grad,
    num_rows,
    num_classes,
    num_positions,
    z_stride,
    z_class_stride,
    target_stride,
    target_class_stride,
    ignore_index,
    smoothing,
    VECTOR: tl.constexpr,
    IS_IMAGES: tl.constexpr,
    ALPHA_IS_POINTER: tl.constexpr,
    IS_SOFT: tl.constexpr,
    IS_WEIGHTED: tl.constexpr,
    IS_SMOOTHED: tl.constexpr,
    REDUCTION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CLASSES: tl.constexpr,
):
    """What `backward_kernel` does for its block."""
    num_classes, num_positions = _lengths(num_classes, num_positions, VECTOR, IS_IMAGES)
    num_blocks = tl.cdiv(num_classes, BLOCK_CLASSES)
    rows, is_row, outer, position = _rows(
        block // num_blocks, num_rows, num_positions, BLOCK_ROWS, IS_IMAGES
    )
    classes = (block % num_blocks) * BLOCK_CLASSES + tl.arange(0, BLOCK_CLASSES)
    mask = is_row[:, None] & (classes < num_classes)[None, :]
    z_rows = z + outer * (z_stride * VECTOR) + position
    offsets = _offsets(classes, z_class_stride, VECTOR, IS_IMAGES)
    exponent = tl.load(alpha).to(tl.float32) if ALPHA_IS_POINTER else alpha
    logits = tl.load(z_rows[:, None] + offsets[None, :], mask, other=float("-inf"))
    logits = logits.to(tl.float32)
    maximum = tl.load(stats + rows, is_row, other=0.0)
    inverse_sum = tl.load(stats + num_rows + rows, is_row, other=0.0)
    stats += 2 * num_rows
    distance = (logits - maximum[:, None]) * LOG2_E
    tampered = tl.where(logits == float("-inf"), 0.0, tl.exp2(exponent * distance))
    p = tampered * inverse_sum[:, None]
    scale = tl.load(grad_loss + rows * grad_loss_stride, is_row, other=0.0).to(tl.float32)
    if IS_SOFT or IS_SMOOTHED:
        total = tl.load(stats + rows, is_row, other=0.0)
        stats += num_rows
    if REDUCTION == "mean":
        scale = scale / tl.load(stats)
    if not IS_SOFT:
        label, is_counted, row_weight = label_of(
            target, weight, rows, is_row, num_classes, target_stride, ignore_index,
            IS_WEIGHTED, False,
        )  # fmt: skip
        # Not a product: where every row is ignored that is 0 * inf.
        scale = tl.where(is_counted, scale, 0.0)
        confidence = row_weight * (1.0 - smoothing)
        if not IS_SMOOTHED:
            total = confidence
    difference = total[:, None] * p
    if IS_SOFT or IS_SMOOTHED:
        target_rows = target
        if IS_SOFT:
            target_rows = (target + outer * (target_stride * VECTOR) + position)[:, None]
        offsets = _offsets(classes, target_class_stride, VECTOR, IS_IMAGES)
        difference -= spread_target(
            target_rows, weight, classes[None, :], offsets[None, :], mask, num_classes,
            smoothing, IS_SOFT, IS_WEIGHTED, IS_SMOOTHED,
        )  # fmt: skip
    if not IS_SOFT:
        is_label = classes[None, :] == label[:, None]
        difference -= tl.where(is_label, confidence[:, None], 0.0)
    gradient = scale[:, None] * difference
    grad_rows = grad + outer * num_classes * num_positions + position
    offsets = _offsets(classes, num_positions, 1, IS_IMAGES)
    tl.store(grad_rows[:, None] + offsets[None, :], gradient, mask)


@triton.jit
def _lengths(num_classes, num_positions, VECTOR: tl.constexpr, IS_IMAGES: tl.constexpr):
    """Classes and positions, of which those that are adjacent come in vectors; 1 if of no image."""
    if IS_IMAGES:
        num_positions = num_positions * VECTOR
    else:
        num_classes = num_classes * VECTOR
    return num_classes, num_positions


@triton.jit
def _rows(block, num_rows, num_positions, BLOCK_ROWS: tl.constexpr, IS_IMAGES: tl.constexpr):
    """Of a block: the numbers of its rows, which of them exist, their images and positions.

    Where there are no images, the row is in the image's place, and its position is 0.
    """
    places = tl.arange(0, BLOCK_ROWS)
    if IS_IMAGES:
        num_blocks = tl.cdiv(num_positions, BLOCK_ROWS)
        outer = (block // num_blocks).to(tl.int64)
        position = (block % num_blocks) * BLOCK_ROWS + places
        rows, is_row = outer * num_positions + position, position < num_positions
    else:
        rows = block.to(tl.int64) * BLOCK_ROWS + places
        outer, position, is_row = rows, 0, rows < num_rows
    return rows, is_row, outer, position


@triton.jit
def _offsets(classes, class_stride, VECTOR: tl.constexpr, IS_IMAGES: tl.constexpr):
    """How far classes are from the first of their row."""
    if IS_IMAGES:
        classes = classes.to(tl.int64) * (class_stride * VECTOR)
    return classes
