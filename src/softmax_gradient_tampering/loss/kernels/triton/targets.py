"""Parts of the device code: labels and target distributions, a block of rows and classes at a time.

Legend: rows is the number of each row in what has one number a row. Upper-case arguments are known
when a kernel is compiled.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def label_of(
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
def spread_target(
    target_rows,
    weight,
    classes,
    offsets,
    mask,
    num_classes,
    smoothing,
    IS_SOFT: tl.constexpr,
    IS_WEIGHTED: tl.constexpr,
    IS_SMOOTHED: tl.constexpr,
):
    """The part of q that is not one-hot, for a block of two dimensions; 0 outside of the tensor.

    Args:
        target_rows: pointers to the first class of every row, (rows, 1); used if IS_SOFT.
        weight: pointer to the class weights; used if IS_WEIGHTED.
        classes: of the block's elements, (1, classes) or of its shape.
        offsets: how far they are from the first class of their row, likewise.
        mask: which of the block's elements there are.
    """
    q = tl.zeros(mask.shape, tl.float32)
    if IS_SOFT:
        q += tl.load(target_rows + offsets, mask, other=0.0)
    if IS_SMOOTHED:
        q = q * (1.0 - smoothing) + smoothing / num_classes
    if IS_WEIGHTED:
        q = q * tl.load(weight + classes, classes < num_classes, other=0.0)
    return tl.where(mask, q, 0.0).to(tl.float32)
