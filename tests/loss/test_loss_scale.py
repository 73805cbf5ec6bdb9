"""One and the same gradient at every loss scale: what the published hook got wrong."""

from typing import Any

import pytest
import torch
from torch import nn

from softmax_gradient_tampering import tampered_cross_entropy
from tests.loss.cases import Case, assert_equal

LOSS_SCALES = [2.0**exponent for exponent in range(21)]
BATCH_SIZES = (1, 7, 80, 256)
OPTIONS: tuple[dict[str, Any], ...] = ({}, {"label_smoothing": 0.1}, {"reduction": "sum"})


def unscaled_gradient(logits, target, alpha, loss_scale, **options):
    """The gradient after a backward pass under GradScaler, in float32 for float16 logits."""
    # GradScaler refuses gradients in float16: as in mixed precision, the leaf is float32.
    leaf = logits.float() if logits.dtype == torch.float16 else logits.clone()
    leaf = nn.Parameter(leaf)
    optimizer = torch.optim.SGD([leaf], lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=loss_scale)
    with torch.autocast("cpu", torch.float16, enabled=logits.dtype == torch.float16):
        loss = tampered_cross_entropy(leaf.to(logits.dtype), target, alpha, **options)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    return leaf.grad


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_unscaled_gradient_is_the_same_at_every_loss_scale(batch_size, dtype, options):
    logits, target, _ = Case(shape=(batch_size, 10)).make(dtype)
    expected = unscaled_gradient(logits, target, 0.25, loss_scale=1.0, **options)
    assert expected.count_nonzero() == expected.numel()
    for loss_scale in LOSS_SCALES:
        assert_equal(unscaled_gradient(logits, target, 0.25, loss_scale, **options), expected)


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_unscaled_gradient_in_float16_is_the_same_where_no_scale_leaves_its_range(batch_size):
    logits, target, _ = Case(shape=(batch_size, 10)).make(torch.float16)
    truth = unscaled_gradient(logits.double(), target, 0.25, loss_scale=1.0).abs()
    float16 = torch.finfo(torch.float16)
    in_range = [
        (truth * scale > float16.smallest_normal) & (truth * scale < float16.max)
        for scale in LOSS_SCALES
    ]
    grads = [unscaled_gradient(logits, target, 0.25, scale) for scale in LOSS_SCALES]
    # The exact gradient of some other scale decides what each element must be.
    expected = torch.full_like(grads[0], torch.nan)
    compared = 0
    for grad, inside in zip(grads, in_range, strict=True):
        known = inside & expected.isfinite()
        compared += int(known.sum())
        assert_equal(grad[known], expected[known])
        expected = torch.where(inside, grad, expected)
    assert compared >= 10 * truth.numel()
