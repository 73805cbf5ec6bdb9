"""Wrong arguments: what torch's cross-entropy refuses is refused with its exception."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from softmax_gradient_tampering import (
    TamperedCrossEntropyLoss,
    logit_statistics,
    power_transform,
    stationary_threshold,
    tampered_binary_cross_entropy_with_logits,
    tampered_cross_entropy,
)
from softmax_gradient_tampering.loss.kernels.cpu import blocks

LOGITS, LABELS = torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])
# name: (shape of the logits, target, options, what the message names)
WRONG = {
    "fewer labels": ((4, 3), [0, 1], {}, "batch_size"),
    "labels of a column": ((4, 3), [[0], [1], [2], [0]], {}, "target"),
    "one label for a batch": ((4, 3), 0, {}, "batch|target|size"),
    "labels of another image": ((2, 3, 2), [[0, 1, 2], [0, 1, 2]], {}, "target|shape"),
    "logits of no dimension": ((), 0, {}, "got Long"),
    "soft target of another shape": ((4, 3), torch.ones(4, 2), {}, "multi-target"),
    "label above the classes": ((4, 3), [0, 1, 2, 3], {}, "3 is out of bounds"),
    "label below zero": ((4, 3), [0, 1, 2, -1], {}, "-1 is out of bounds"),
    "label above, smoothed": ((4, 3), [0, 1, 2, 3], {"label_smoothing": 0.1}, "out of bounds"),
    "label above, image": ((1, 3, 2), [[3, 0]], {}, "3 is out of bounds"),
    "label above, one sample": ((3,), 3, {}, "3 is out of bounds"),
    "label above, summed": ((4, 3), [0, 1, 2, 3], {"reduction": "sum"}, "3 is out of bounds"),
    "ignored index of a soft target": ((4, 3), torch.ones(4, 3), {"ignore_index": 0}, "float"),
    "unknown reduction": ((4, 3), [0, 1, 2, 0], {"reduction": "average"}, "average"),
    "reduction without a name": ((4, 3), [0, 1, 2, 0], {"reduction": None}, "None"),
    "smoothing above 1": ((4, 3), [0, 1, 2, 0], {"label_smoothing": 1.1}, "1.1"),
    "weight of other classes": ((4, 3), [0, 1, 2, 0], {"weight": torch.ones(2)}, "weight"),
    "weight of two dimensions": ((4, 3), [0, 1, 2, 0], {"weight": torch.ones(4, 3)}, "weight"),
    "weight of other classes, soft": (
        (4, 3),
        torch.ones(4, 3),
        {"weight": torch.ones(2)},
        "weight",
    ),
    "weight of another dtype": (
        (4, 3),
        [0, 1, 2, 0],
        {"weight": torch.ones(3, dtype=torch.float64)},
        "[Dd]ouble",
    ),
    "bool labels": ((2, 3), torch.tensor([True, False]), {}, "Bool"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_torch_refuses_is_refused_with_its_exception(name):
    shape, target, options, names = WRONG[name]
    logits, target = torch.zeros(shape), torch.as_tensor(target)
    with pytest.raises((ValueError, RuntimeError, IndexError)) as torchs:
        F.cross_entropy(logits, target, **options)
    with pytest.raises(torchs.type, match=names):
        tampered_cross_entropy(logits, target, 0.25, **options)
    with pytest.raises(torchs.type, match=names):
        TamperedCrossEntropyLoss(0.25, **options)(logits, target)


NO_TENSORS = {
    "logits of numpy": ((np.zeros((4, 3), np.float32), LABELS), {}),
    "labels of numpy": ((LOGITS, np.zeros(4, np.int64)), {}),
    "labels in a list": ((LOGITS, [0, 1, 2, 0]), {}),
    "no logits": ((None, LABELS), {}),
    "weight of numpy": ((LOGITS, LABELS), {"weight": np.ones(3, np.float32)}),
    "weight of another device": ((LOGITS, LABELS), {"weight": torch.ones(3, device="meta")}),
    "labels of another device": ((LOGITS, LABELS.to("meta")), {}),
    "no label smoothing": ((LOGITS, LABELS), {"label_smoothing": None}),
    "no ignored index": ((LOGITS, LABELS), {"ignore_index": None}),
    "sparse logits": ((LOGITS.to_sparse(), LABELS), {}),
    "sparse logits by rows": ((torch.eye(4, 3).to_sparse_csr(), LABELS), {}),
    "sparse logits by columns": ((torch.eye(4, 3).to_sparse_csc(), LABELS), {}),
    "sparse labels": ((LOGITS, LABELS.to_sparse()), {}),
    "sparse weight": ((LOGITS, LABELS), {"weight": torch.ones(3).to_sparse()}),
    "logits of oneDNN": ((LOGITS.to_mkldnn(), LABELS), {}),
    "complex logits": ((LOGITS + 0j, LABELS), {}),
    "logits of 8 bits": ((LOGITS.to(torch.float8_e4m3fn), LABELS), {}),
    "labels of 16 bits without sign": ((LOGITS, LABELS.to(torch.uint16)), {}),
}


@pytest.mark.parametrize("name", NO_TENSORS)
def test_what_is_no_tensor_of_the_kind_is_refused_in_torchs_words(name):
    arguments, options = NO_TENSORS[name]
    with pytest.raises(Exception) as torchs:  # noqa: PT011
        F.cross_entropy(*arguments, **options)
    with pytest.raises(torchs.type) as ours:
        tampered_cross_entropy(*arguments, 0.25, **options)
    assert str(ours.value) == str(torchs.value)


@pytest.mark.parametrize("wrong", [[0.5], np.zeros((4, 3), np.float32)], ids=repr)
@pytest.mark.parametrize("function", [logit_statistics, power_transform, stationary_threshold])
def test_a_statistic_of_no_tensor_is_refused_in_a_sentence(function, wrong):
    others = () if function is logit_statistics else (0.5,)
    with pytest.raises(TypeError, match=r"(logits|p) must be a tensor, not .*as_tensor"):
        function(wrong, *others)


def test_integer_logits_are_refused():
    logits, target = torch.zeros(2, 3, dtype=torch.int64), torch.tensor([0, 1])
    with pytest.raises((RuntimeError, NotImplementedError), match="not implemented for 'Long'"):
        tampered_cross_entropy(logits, target, 0.25)


@pytest.mark.parametrize("kernel", ["auto", "reference", "blocks"])
def test_a_label_beyond_the_classes_is_an_index_error_in_every_kernel(kernel, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_SIZE", 3)
    with pytest.raises(IndexError, match=r"Target 3 is out of bounds\."):
        tampered_cross_entropy(torch.zeros(4, 3), torch.tensor([0, 1, 2, 3]), 0.25, kernel=kernel)


def test_binary_target_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="must be the same as input size"):
        tampered_binary_cross_entropy_with_logits(torch.zeros(2, 3), torch.zeros(2), 0.25)
