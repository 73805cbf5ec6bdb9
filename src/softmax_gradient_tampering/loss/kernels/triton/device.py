"""The device code of `triton`: pointers and numbers in, one block of rows and classes a program.

Legend: weight is the class weights, stats and row_sums are laid out as in `triton`; classes are
adjacent. The length of a row of classes, and the strides of such rows, are in vectors of VECTOR
elements: the compiler then knows what divides them, and reads and writes 128 bits at once where
that is 8 half numbers. Upper-case arguments are known when a kernel is compiled.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def forward_kernel(
    z,
    target,
    alpha,
    weight,
    stats,
    row_sums,
    num_rows,
    num_vectors,
    z_stride,
    target_stride,
    ignore_index,
    smoothing,
    VECTOR: tl.constexpr,
    ALPHA_IS_POINTER: tl.constexpr,
    IS_SOFT: tl.constexpr,
    IS_WEIGHTED: tl.constexpr,
    IS_SMOOTHED: tl.constexpr,
    REDUCTION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CLASSES: tl.constexpr,
):
    """The loss of BLOCK_ROWS rows, one block of classes after the other."""
    num_classes = num_vectors * VECTOR
    z_stride = z_stride * VECTOR
    if IS_SOFT:
        target_stride = target_stride * VECTOR
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    is_row = rows < num_rows
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
        logits = tl.load(z + rows[:, None] * z_stride + classes[None, :], mask, other=minus_inf)
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
            q = _spread_target(
                target, weight, rows, classes, mask, num_classes, target_stride, smoothing,
                IS_SOFT, IS_WEIGHTED, IS_SMOOTHED,
            )  # fmt: skip
            origin = tl.where(start == 0, base, origin)
            q_sum += q
            q_logits += tl.where(mask, q * (logits - origin[:, None]), 0.0)
    log_sum = maximum + tl.log2(tl.sum(exp_sum, 1)) * LN_2
    total = tl.zeros([BLOCK_ROWS], tl.float32)
    loss = tl.zeros([BLOCK_ROWS], tl.float32)
    row_weight = tl.full([BLOCK_ROWS], 1.0, tl.float32)
    if IS_SOFT or IS_SMOOTHED:
        total = tl.sum(q_sum, 1)
        loss = total * (log_sum - origin) - tl.sum(q_logits, 1)
    if not IS_SOFT:
        label, is_counted, row_weight = _label(
            target,
            weight,
            rows,
            is_row,
            num_classes,
            target_stride,
            ignore_index,
            IS_WEIGHTED,
            True,
        )
        at_label = tl.load(z + rows * z_stride + label, is_row, other=0.0).to(tl.float32)
        confidence = row_weight * (1.0 - smoothing)
        loss = tl.where(is_counted, loss + confidence * (log_sum - at_label), 0.0)
        total = tl.where(is_counted, total + confidence, 0.0)
    tl.store(stats + rows, maximum, is_row)
    tl.store(stats + num_rows + rows, 1.0 / tl.sum(tampered_sum, 1), is_row)
    if IS_SOFT or IS_SMOOTHED:
        tl.store(stats + num_rows + num_rows + rows, total, is_row)
    tl.store(row_sums + rows, loss, is_row)
    if REDUCTION != "none":
        tl.store(row_sums + num_rows + rows, row_weight, is_row)


@triton.jit
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
    num_vectors,
    z_stride,
    target_stride,
    ignore_index,
    smoothing,
    VECTOR: tl.constexpr,
    ALPHA_IS_POINTER: tl.constexpr,
    IS_SOFT: tl.constexpr,
    IS_WEIGHTED: tl.constexpr,
    IS_SMOOTHED: tl.constexpr,
    REDUCTION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CLASSES: tl.constexpr,
):
    """The gradient of one block: scale * (sum_c(q) p' - q)."""
    num_classes = num_vectors * VECTOR
    z_stride = z_stride * VECTOR
    if IS_SOFT:
        target_stride = target_stride * VECTOR
    num_blocks = tl.cdiv(num_classes, BLOCK_CLASSES)
    block = tl.program_id(0)
    rows = (block // num_blocks).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    classes = (block % num_blocks) * BLOCK_CLASSES + tl.arange(0, BLOCK_CLASSES)
    is_row = rows < num_rows
    mask = is_row[:, None] & (classes < num_classes)[None, :]
    exponent = tl.load(alpha).to(tl.float32) if ALPHA_IS_POINTER else alpha
    logits = tl.load(z + rows[:, None] * z_stride + classes[None, :], mask, other=float("-inf"))
    logits = logits.to(tl.float32)
    maximum = tl.load(stats + rows, is_row, other=0.0)
    inverse_sum = tl.load(stats + num_rows + rows, is_row, other=0.0)
    distance = (logits - maximum[:, None]) * LOG2_E
    tampered = tl.where(logits == float("-inf"), 0.0, tl.exp2(exponent * distance))
    p = tampered * inverse_sum[:, None]
    scale = tl.load(grad_loss + rows * grad_loss_stride, is_row, other=0.0).to(tl.float32)
    divisor = stats + num_rows + num_rows + 1
    if IS_SOFT or IS_SMOOTHED:
        total = tl.load(stats + num_rows + num_rows + rows, is_row, other=0.0)
        divisor += num_rows
    if REDUCTION == "mean":
        scale = scale / tl.load(divisor)
    if not IS_SOFT:
        label, is_counted, row_weight = _label(
            target,
            weight,
            rows,
            is_row,
            num_classes,
            target_stride,
            ignore_index,
            IS_WEIGHTED,
            False,
        )
        # Not a product: where every row is ignored that is 0 * inf.
        scale = tl.where(is_counted, scale, 0.0)
        confidence = row_weight * (1.0 - smoothing)
        if not IS_SMOOTHED:
            total = confidence
    difference = total[:, None] * p
    if IS_SOFT or IS_SMOOTHED:
        difference -= _spread_target(
            target, weight, rows, classes, mask, num_classes, target_stride, smoothing,
            IS_SOFT, IS_WEIGHTED, IS_SMOOTHED,
        )  # fmt: skip
    if not IS_SOFT:
        is_label = classes[None, :] == label[:, None]
        difference -= tl.where(is_label, confidence[:, None], 0.0)
    gradient = scale[:, None] * difference
    tl.store(grad + rows[:, None] * num_classes + classes[None, :], gradient, mask)


@triton.jit
def _label(
    target,
    weight,
    rows,
    is_row,
    num_classes,
    target_stride,
    ignore_index,
    IS_WEIGHTED: tl.constexpr,
    IS_ASSERTED: tl.constexpr,
):
    """Of every row the class, whether it counts, and its weight; nan if there is no such class.

    The forward kernel asserts that there is one; the backward one, of many blocks a row, need not.
    """
    label = tl.load(target + rows * target_stride, is_row, other=0)
    is_counted = label != ignore_index
    is_class = (label >= 0) & (label < num_classes)
    if IS_ASSERTED:
        tl.device_assert(is_class | (label == ignore_index), "Target is out of bounds")
    label = tl.where(is_class, label, 0)
    row_weight = tl.full(label.shape, 1.0, tl.float32)
    if IS_WEIGHTED:
        row_weight = tl.load(weight + label).to(tl.float32)
    row_weight = tl.where(is_class, row_weight, float("nan"))
    return label, is_counted, tl.where(is_counted, row_weight, 0.0)


@triton.jit
def _spread_target(
    target,
    weight,
    rows,
    classes,
    mask,
    num_classes,
    target_stride,
    smoothing,
    IS_SOFT: tl.constexpr,
    IS_WEIGHTED: tl.constexpr,
    IS_SMOOTHED: tl.constexpr,
):
    """The part of q that is not one-hot, for a block; 0 outside of the tensor."""
    q = tl.zeros(mask.shape, tl.float32)
    if IS_SOFT:
        q += tl.load(target + rows[:, None] * target_stride + classes[None, :], mask, other=0.0)
    if IS_SMOOTHED:
        q = q * (1.0 - smoothing) + smoothing / num_classes
    if IS_WEIGHTED:
        q = q * tl.load(weight + classes, classes < num_classes, other=0.0)[None, :]
    return tl.where(mask, q, 0.0).to(tl.float32)
