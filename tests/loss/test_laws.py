"""The laws of the tampered cross-entropy, in float64 over every combination of options."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from softmax_gradient_tampering import tampered_cross_entropy
from tests.loss.cases import (
    ALPHAS,
    CASES,
    FEW_CASES,
    OPTION_CASES,
    Case,
    assert_close,
    assert_equal,
    surrogate,
    value_and_gradient,
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_is_that_of_cross_entropy_at_alpha_z_over_alpha(case):
    logits, target, options = case.make()
    for alpha in ALPHAS:
        _, actual = value_and_gradient(tampered_cross_entropy, logits, target, alpha, **options)
        _, expected = value_and_gradient(surrogate, logits, target, alpha, **options)
        assert_close(actual, expected)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_is_that_of_the_ordinary_cross_entropy(case):
    logits, target, options = case.make()
    expected = F.cross_entropy(logits, target, **options)
    assert_close(tampered_cross_entropy(logits, target, 0.25, **options), expected)


@pytest.mark.parametrize("case", OPTION_CASES, ids=str)
def test_at_alpha_one_it_is_the_cross_entropy_of_torch(case):
    logits, target, options = case.make()
    actual = value_and_gradient(tampered_cross_entropy, logits, target, 1.0, **options)
    expected = value_and_gradient(F.cross_entropy, logits, target, **options)
    for ours, torchs in zip(actual, expected, strict=True):
        assert_close(ours, torchs)


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_value_is_independent_of_alpha(case):
    logits, target, options = case.make()
    expected = tampered_cross_entropy(logits, target, 1.0, **options)
    for alpha in (0.0, *ALPHAS):
        assert_equal(tampered_cross_entropy(logits, target, alpha, **options), expected)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_gradient_replaces_p_by_its_power_transform(alpha):
    logits, target, _ = Case().make()
    p = logits.softmax(1)
    p_tampered = p**alpha / (p**alpha).sum(1, keepdim=True)
    expected = (p_tampered - F.one_hot(target, logits.shape[1])) / len(logits)
    _, actual = value_and_gradient(tampered_cross_entropy, logits, target, alpha)
    assert_close(actual, expected)
    assert_close(p_tampered, (alpha * logits).softmax(1))


@pytest.mark.parametrize("alpha", [0.0, *ALPHAS])
@pytest.mark.parametrize("case", OPTION_CASES, ids=str)
def test_rows_of_the_gradient_sum_to_zero(case, alpha):
    logits, target, options = case.make()
    _, grad = value_and_gradient(tampered_cross_entropy, logits, target, alpha, **options)
    assert_close(grad.sum(1), torch.zeros(len(logits), dtype=grad.dtype))
    assert grad.abs().max() > 1e-3 or (case.smoothing == 1 and alpha == 0)


def test_gradient_at_alpha_zero_is_uniform_minus_target():
    logits, target, _ = Case().make()
    _, grad = value_and_gradient(tampered_cross_entropy, logits, target, 0.0)
    assert_close(grad, (1 / 5 - F.one_hot(target, 5).double()) / 7)


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_gradient_at_alpha_zero_is_the_limit(case):
    logits, target, options = case.make()
    _, at_zero = value_and_gradient(tampered_cross_entropy, logits, target, 0.0, **options)
    _, near_zero = value_and_gradient(tampered_cross_entropy, logits, target, 1e-6, **options)
    assert_close(at_zero, near_zero, "limit")


def test_an_ignored_row_counts_neither_in_value_nor_in_gradient():
    logits, target, options = Case(ignored=True).make()
    kept = target != options["ignore_index"]
    assert 0 < kept.sum() < len(target)
    loss, grad = value_and_gradient(tampered_cross_entropy, logits, target, 0.25, **options)
    loss_kept, grad_kept = value_and_gradient(
        tampered_cross_entropy, logits[kept], target[kept], 0.25
    )
    assert_close(loss, loss_kept)
    assert_close(grad[kept], grad_kept)
    assert_equal(grad[~kept], torch.zeros_like(grad[~kept]))


def test_adding_a_constant_to_a_row_changes_no_gradient():
    logits, target, options = Case(weighted=True, smoothing=0.1).make()
    shifted = logits + torch.arange(len(logits)).unsqueeze(1)
    _, expected = value_and_gradient(tampered_cross_entropy, logits, target, 0.25, **options)
    _, actual = value_and_gradient(tampered_cross_entropy, shifted, target, 0.25, **options)
    assert_close(actual, expected)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=5).map(tuple),
    option_case=st.sampled_from(OPTION_CASES),
    alpha=st.floats(0.01, 3),
    seed=st.integers(0, 1000),
)
def test_value_and_gradient_laws_hold_for_any_shape(shape, option_case, alpha, seed):
    # With one class, the ignored index and smoothing's share need a second one.
    shape = (shape[0] + 1,) if len(shape) == 1 else (shape[0], shape[1] + 1, *shape[2:])
    logits, target, options = replace(option_case, shape=shape).make(seed=seed)
    loss, grad = value_and_gradient(tampered_cross_entropy, logits, target, alpha, **options)
    assert_close(loss, F.cross_entropy(logits, target, **options))
    _, expected = value_and_gradient(surrogate, logits, target, alpha, **options)
    assert_close(grad, expected)
