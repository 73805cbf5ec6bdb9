"""Gradients and losses measured on the published code, where its hook is right.

golden/published_gradients.npz holds, for N rows and C classes: `z64_*`, 64 times the
logits; `y_*`, the labels; `g_*`, the gradient of the mean loss at alpha a and smoothing s
at the one loss scale N^2 where the published hook is right; `loss_*`, the loss. Of the
cases with 1000 classes only the first rows are kept.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from softmax_gradient_tampering import tampered_cross_entropy
from tests.loss.cases import assert_close

GOLDEN = Path(__file__).parent / "golden" / "published_gradients.npz"
SMOOTHINGS = ("0.0", "0.1")
SIZES_AND_ALPHAS = {
    "N16_C10": ("1.0", "0.92", "0.5", "0.3", "0.25", "0.05"),
    "N256_C10": ("1.0", "0.92", "0.5", "0.3", "0.25", "0.05"),
    "N16_C1000": ("0.25", "0.05"),
    "N256_C1000": ("0.25", "0.05"),
}
GRADIENTS = [
    (size, alpha, smoothing)
    for size, alphas in SIZES_AND_ALPHAS.items()
    for alpha in alphas
    for smoothing in SMOOTHINGS
]


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def logits_and_labels(golden, size):
    return golden[f"z64_{size}"].double() / 64, golden[f"y_{size}"].long()


def test_every_published_gradient_is_tested(golden):
    names = {f"g_{size}_a{alpha}_s{smoothing}" for size, alpha, smoothing in GRADIENTS}
    assert names == {name for name in golden if name.startswith("g_")}


@pytest.mark.parametrize(("size", "alpha", "smoothing"), GRADIENTS)
def test_gradient_is_the_published_one(golden, size, alpha, smoothing):
    logits, labels = logits_and_labels(golden, size)
    num_rows = int(size[1 : size.index("_")])
    logits.requires_grad_()
    loss = tampered_cross_entropy(
        logits, labels, float(alpha), reduction="sum", label_smoothing=float(smoothing)
    )
    (loss / num_rows).backward()
    assert_close(logits.grad, golden[f"g_{size}_a{alpha}_s{smoothing}"], "golden")


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("size", ["N16_C10", "N256_C10"])
def test_loss_is_the_published_one(golden, size, smoothing):
    logits, labels = logits_and_labels(golden, size)
    loss = tampered_cross_entropy(logits, labels, 0.25, label_smoothing=float(smoothing))
    assert_close(loss, golden[f"loss_{size}_s{smoothing}"], "golden")
