"""Accuracy: against a float64 truth, no worse than torch's own loss plus one ulp."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from softmax_gradient_tampering import tampered_cross_entropy
from tests.loss.cases import (
    ALPHAS,
    DTYPES,
    FEW_CASES,
    Case,
    surrogate,
    value_and_gradient,
)

LOW_DTYPES = tuple(dtype for dtype in DTYPES if dtype != torch.float64)
LARGE_CASES = (*FEW_CASES, Case(shape=(64, 1000)), Case(shape=(64, 100), soft=True))
LOGIT_SCALES = (1.0, 3.0, 20.0)
NUM_SEEDS = 4


def double(tensor):
    return tensor.double() if torch.is_tensor(tensor) and tensor.is_floating_point() else tensor


def errors_in_ulps(loss_fn, truth_fn, logits, target, options):
    """Largest error of value and gradient, in ulps of the largest number of the truth."""
    exact = {name: double(option) for name, option in options.items()}
    truths = value_and_gradient(truth_fn, double(logits), double(target), **exact)
    results = value_and_gradient(loss_fn, logits, target, **options)
    errors = []
    for result, truth in zip(results, truths, strict=True):
        largest = truth.abs().max().to(logits.dtype)
        ulp = torch.nextafter(largest, torch.full_like(largest, torch.inf)) - largest
        errors.append(((result.double() - truth).abs().max() / ulp.double()).item())
    return errors


def draws(case, dtype):
    for seed, scale in product(range(NUM_SEEDS), LOGIT_SCALES):
        yield case.make(dtype, seed=seed, scale=scale)


# The largest error is that over all draws: one draw of a few numbers says little about the
# arithmetic, as both losses round some ten times on the way, in different places.


@pytest.mark.parametrize("dtype", LOW_DTYPES, ids=str)
@pytest.mark.parametrize("case", LARGE_CASES, ids=str)
def test_largest_error_of_the_value_is_at_most_that_of_torch_plus_one_ulp(case, dtype):
    def tampered(z, target, **options):
        return tampered_cross_entropy(z, target, 0.25, **options)

    ours, torchs = (
        max(errors_in_ulps(loss_fn, F.cross_entropy, *draw)[0] for draw in draws(case, dtype))
        for loss_fn in (tampered, F.cross_entropy)
    )
    assert ours <= torchs + 1


@pytest.mark.parametrize("dtype", LOW_DTYPES, ids=str)
@pytest.mark.parametrize("case", LARGE_CASES, ids=str)
def test_largest_error_of_the_gradient_is_at_most_that_of_torch_plus_one_ulp(case, dtype):
    ours, torchs = [], []
    for draw, alpha in product(draws(case, dtype), ALPHAS):

        def tampered(z, target, alpha=alpha, **options):
            return tampered_cross_entropy(z, target, alpha, **options)

        def at_alpha_z(z, target, alpha=alpha, **options):
            return surrogate(z, target, alpha, **options)

        ours.append(errors_in_ulps(tampered, at_alpha_z, *draw)[1])
        torchs.append(errors_in_ulps(at_alpha_z, at_alpha_z, *draw)[1])
    assert max(ours) <= max(torchs) + 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_half_types_are_rounded_only_on_the_way_out(dtype, reduction):
    logits, target, options = Case(shape=(32, 10), reduction=reduction).make(dtype)
    for alpha in ALPHAS:
        in_half = value_and_gradient(tampered_cross_entropy, logits, target, alpha, **options)
        in_float = value_and_gradient(
            tampered_cross_entropy, logits.float(), target, alpha, **options
        )
        # Where the loss is 0-d its incoming gradient is 1, the same in both.
        assert torch.equal(in_half[0], in_float[0].to(dtype))
        if reduction == "mean":
            assert torch.equal(in_half[1], in_float[1].to(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_dtypes_are_those_of_torch(case, dtype):
    logits, target, options = case.make(dtype)
    actual = value_and_gradient(tampered_cross_entropy, logits, target, 0.25, **options)
    expected = value_and_gradient(F.cross_entropy, logits, target, **options)
    assert [tensor.dtype for tensor in actual] == [tensor.dtype for tensor in expected]


@pytest.mark.parametrize("target_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes_are_those_of_torch_for_soft_targets_of_any_dtype(dtype, target_dtype):
    logits, target, _ = Case(soft=True).make(dtype)
    target = target.to(target_dtype)
    actual = value_and_gradient(tampered_cross_entropy, logits, target, 0.25)
    expected = value_and_gradient(F.cross_entropy, logits, target)
    assert [tensor.dtype for tensor in actual] == [tensor.dtype for tensor in expected]
