"""The device code of `fused`: loss and gradient by one program a row, which reads it twice.

The second time it finds the row in the cache, so that the logits are read and the gradient
is written once. Legend as in `device`; a block is GROUPS groups of WIDTH adjacent classes, as many
as a thread reads at once, and every group has a maximum and sums of its own: no thread waits
for another before the row ends. Where rows begin anywhere (IS_PEELED), blocks begin at the
last multiple of WIDTH elements before, and what is not of the row is passed over.

memory holds, one after the other, stats as in `triton`, the incoming gradient that is foreseen,
and the scratch of `sums`.
"""

import triton
import triton.language as tl

from softmax_gradient_tampering.loss.kernels.triton.device import write_gradient
from softmax_gradient_tampering.loss.kernels.triton.sums import sum_in_last_block
from softmax_gradient_tampering.loss.kernels.triton.targets import (
    LN_2,
    LOG2_E,
    label_of,
    spread_target,
)


@triton.jit(do_not_specialize=["num_rows", "num_counters"])
def prepare_kernel(
    target,
    weight,
    predicted,
    memory,
    num_rows,
    num_counters,
    num_classes,
    target_stride,
    ignore_index,
    IS_SOFT: tl.constexpr,
    IS_WEIGHTED: tl.constexpr,
    IS_SMOOTHED: tl.constexpr,
    REDUCTION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: what the mean divides by, counters at 0, and the prediction as it is now."""
    foreseen = _after_stats(memory, num_rows, IS_SOFT or IS_SMOOTHED, REDUCTION == "mean")
    tl.store(foreseen, tl.load(predicted))
    places = tl.arange(0, BLOCK)
    for start in range(0, num_counters, BLOCK):
        zeros = tl.zeros([BLOCK], tl.float32)
        tl.store(foreseen + 1 + start + places, zeros, start + places < num_counters)
    if REDUCTION == "mean":
        total = tl.zeros([BLOCK], tl.float32)
        for start in range(0, num_rows, BLOCK):
            rows = start + places
            is_row = rows < num_rows
            row_weight = tl.full([BLOCK], 1.0, tl.float32)
            if not IS_SOFT:
                _, _, row_weight = label_of(
                    target, weight, rows, is_row, num_classes, target_stride, ignore_index,
                    IS_WEIGHTED, False,
                )  # fmt: skip
            total += tl.where(is_row, row_weight, 0.0)
        tl.store(foreseen - 1, tl.sum(total, 0))


@triton.jit(do_not_specialize=["num_rows"], do_not_specialize_on_alignment=["alpha"])
def fused_kernel(
    z,
    target,
    alpha,
    weight,
    memory,
    loss,
    grad,
    num_rows,
    num_classes,
    z_stride,
    target_stride,
    ignore_index,
    smoothing,
    VECTOR: tl.constexpr,
    IS_PEELED: tl.constexpr,
    ALPHA_IS_POINTER: tl.constexpr,
    IS_SOFT: tl.constexpr,
    IS_WEIGHTED: tl.constexpr,
    IS_SMOOTHED: tl.constexpr,
    REDUCTION: tl.constexpr,
    GROUPS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """The loss of a row, and its gradient for the incoming gradient that is foreseen."""
    row = tl.program_id(0).to(tl.int64)
    num_classes = num_classes * VECTOR
    exponent = tl.load(alpha).to(tl.float32) if ALPHA_IS_POINTER else alpha
    minus_inf = float("-inf")
    begin, grad_begin = row * (z_stride * VECTOR), row * num_classes
    shift = 0
    if IS_PEELED:
        shift = (begin % WIDTH).to(tl.int32)
        begin, grad_begin = begin // WIDTH * WIDTH, grad_begin // WIDTH * WIDTH
    target_row = target
    if IS_SOFT:
        target_row = target + row * (target_stride * VECTOR)
    at = tl.arange(0, GROUPS)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    maximum = tl.full([GROUPS], minus_inf, tl.float32)
    origin = tl.zeros([GROUPS], tl.float32)
    exp_sum = tl.zeros([GROUPS], tl.float32)
    tampered_sum = tl.zeros([GROUPS], tl.float32)
    q_sum = tl.zeros([GROUPS], tl.float32)
    q_logits = tl.zeros([GROUPS], tl.float32)
    for start in range(0, num_classes + shift, GROUPS * WIDTH):
        logits, classes, mask = _load_block(
            z + begin + start, start - shift, num_classes, "evict_last", IS_PEELED, GROUPS, WIDTH
        )
        new_maximum = tl.maximum(maximum, tl.max(logits, 1))
        base = tl.where(new_maximum == minus_inf, 0.0, new_maximum)
        shrink = (maximum - base) * LOG2_E
        distance = (logits - base[:, None]) * LOG2_E
        exp_sum = exp_sum * tl.exp2(shrink) + tl.sum(tl.exp2(distance), 1)
        shrink = tl.where(maximum == minus_inf, 0.0, tl.exp2(exponent * shrink))
        tampered = tl.where(logits == minus_inf, 0.0, tl.exp2(exponent * distance))
        tampered_sum = tampered_sum * shrink + tl.sum(tampered, 1)
        maximum = new_maximum
        if IS_SOFT or IS_SMOOTHED:
            q = spread_target(
                target_row, weight, classes, classes, mask, num_classes, smoothing,
                IS_SOFT, IS_WEIGHTED, IS_SMOOTHED,
            )  # fmt: skip
            origin = tl.where(start == 0, base, origin)
            q_sum += tl.sum(q, 1)
            q_logits += tl.sum(tl.where(mask, q * (logits - origin[:, None]), 0.0), 1)
    # From here on of the row. A group of -inf alone, or of no class, adds nothing.
    largest = tl.max(maximum, 0)
    base = tl.where(largest == minus_inf, 0.0, largest)
    shrink = (maximum - base) * LOG2_E
    log_sum = largest + tl.log2(tl.sum(exp_sum * tl.exp2(shrink), 0)) * LN_2
    shrink = tl.where(maximum == minus_inf, 0.0, tl.exp2(exponent * shrink))
    inverse_sum = 1.0 / tl.sum(tampered_sum * shrink, 0)
    total, row_loss, row_weight = 0.0, 0.0, 1.0
    if IS_SOFT or IS_SMOOTHED:
        total = tl.sum(q_sum, 0)
        distances = tl.where(q_sum == 0.0, 0.0, q_sum * (log_sum - origin))
        row_loss = tl.sum(distances - q_logits, 0)
    label, confidence = tl.full([1], -1, tl.int64), 0.0
    foreseen = _after_stats(memory, num_rows, IS_SOFT or IS_SMOOTHED, REDUCTION == "mean")
    scale = tl.load(foreseen)
    if not IS_SOFT:
        ones = tl.zeros([1], tl.int64)
        label, is_counted, row_weights = label_of(
            target, weight, row + ones, ones == 0, num_classes, target_stride, ignore_index,
            IS_WEIGHTED, True,
        )  # fmt: skip
        row_weight = tl.sum(row_weights, 0)
        is_counted = tl.sum(is_counted.to(tl.int32), 0) == 1
        at_label = tl.sum(tl.load(z + row * (z_stride * VECTOR) + label).to(tl.float32), 0)
        confidence = row_weight * (1.0 - smoothing)
        row_loss = tl.where(is_counted, row_loss + confidence * (log_sum - at_label), 0.0)
        total = tl.where(is_counted, total + confidence, 0.0)
        scale = tl.where(is_counted, scale, 0.0)
    tl.store(memory + row, largest)
    tl.store(memory + num_rows + row, inverse_sum)
    if IS_SOFT or IS_SMOOTHED:
        tl.store(memory + 2 * num_rows + row, total)
    if REDUCTION == "mean":
        scale = tl.where(scale == 0.0, 0.0, scale / tl.load(foreseen - 1))
    for start in range(0, num_classes + shift, GROUPS * WIDTH):
        logits, classes, mask = _load_block(
            z + begin + start, start - shift, num_classes, "evict_first", IS_PEELED, GROUPS, WIDTH
        )
        distance = (logits - largest) * LOG2_E
        tampered = tl.where(logits == minus_inf, 0.0, tl.exp2(exponent * distance))
        difference = total * (tampered * inverse_sum)
        if IS_SOFT or IS_SMOOTHED:
            difference -= spread_target(
                target_row, weight, classes, classes, mask, num_classes, smoothing,
                IS_SOFT, IS_WEIGHTED, IS_SMOOTHED,
            )  # fmt: skip
        if not IS_SOFT:
            difference -= tl.where(classes == label[None, :], confidence, 0.0)
        gradient, places = scale * difference, grad + grad_begin + start + at
        if IS_PEELED:  # whole groups at once; of the first and the last, what is of the row
            first = (start + tl.arange(0, GROUPS) * WIDTH - shift)[:, None]
            is_whole = ((first >= 0) & (first + WIDTH <= num_classes)).broadcast_to([GROUPS, WIDTH])
            tl.store(places, gradient, is_whole, eviction_policy="evict_first")
            tl.store(places, gradient, mask & (is_whole == 0))
        else:
            tl.store(places, gradient, mask, eviction_policy="evict_first")
    is_mean: tl.constexpr = REDUCTION == "mean"
    sum_in_last_block(row_loss, row_weight, foreseen + 1, loss, foreseen - 1, is_mean, True)


@triton.jit
def _after_stats(memory, num_rows, HAS_SPREAD_TARGET: tl.constexpr, IS_MEAN: tl.constexpr):
    """Where the incoming gradient stands that is foreseen; the scratch follows."""
    num_vectors: tl.constexpr = 3 if HAS_SPREAD_TARGET else 2
    return memory + num_vectors * num_rows + (1 if IS_MEAN else 0)


@triton.jit
def _load_block(
    begin,
    first_class,
    num_classes,
    POLICY: tl.constexpr,
    IS_PEELED: tl.constexpr,
    GROUPS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Logits, -inf where there is none; their classes; which of them there are."""
    groups = tl.arange(0, GROUPS)[:, None] * WIDTH
    places = tl.arange(0, WIDTH)[None, :]
    classes = first_class + groups + places
    mask = classes < num_classes
    if IS_PEELED:
        # A group is read if one of its classes is of the row: the mask is that of the group. What
        # else is read is in the same 16 bytes, and so in the same page.
        mask = mask & (classes >= 0)
        first = first_class + groups
        is_read = ((first + WIDTH > 0) & (first < num_classes)).broadcast_to([GROUPS, WIDTH])
        logits = tl.load(begin + groups + places, is_read, other=0.0, eviction_policy=POLICY)
        logits = tl.where(mask, logits.to(tl.float32), float("-inf"))
    else:
        logits = tl.load(
            begin + groups + places, mask, other=float("-inf"), eviction_policy=POLICY
        ).to(tl.float32)
    return logits, classes, mask


@triton.jit(
    do_not_specialize=["num_rows", "num_blocks"],
    do_not_specialize_on_alignment=["alpha", "grad_loss"],
)
def repair_kernel(
    z,
    target,
    alpha,
    weight,
    memory,
    grad_loss,
    predicted,
    grad,
    num_blocks,
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
    """Where another incoming gradient came than was foreseen: what `backward_kernel` does.

    It is foreseen the next time. Otherwise the gradient is as it should be.
    """
    foreseen = _after_stats(memory, num_rows, IS_SOFT or IS_SMOOTHED, REDUCTION == "mean")
    incoming = tl.load(grad_loss).to(tl.float32)
    if incoming != tl.load(foreseen):
        if tl.program_id(0) == 0:
            tl.store(predicted, incoming)
        for block in range(tl.program_id(0), num_blocks, tl.num_programs(0)):
            write_gradient(
                block, z, target, alpha, weight, memory, grad_loss, 0, grad, num_rows,
                num_classes, num_positions, z_stride, z_class_stride, target_stride,
                target_class_stride, ignore_index, smoothing, VECTOR, IS_IMAGES,
                ALPHA_IS_POINTER, IS_SOFT, IS_WEIGHTED, IS_SMOOTHED, REDUCTION, BLOCK_ROWS,
                BLOCK_CLASSES,
            )  # fmt: skip
