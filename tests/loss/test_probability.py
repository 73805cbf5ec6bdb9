"""The power transform of probabilities and the probability it leaves as it is."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from softmax_gradient_tampering import power_transform, stationary_threshold
from tests.loss.cases import ALPHAS, assert_close


def probabilities(shape=(6, 5), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).softmax(-1)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (0.0, [1, 1, 1, 1]),
        (0.5, [8, 4, 2, 4]),
        (1.0, [64, 16, 4, 16]),
        (2.0, [4096, 256, 16, 256]),
    ],
)
def test_known_answers(alpha, expected):
    p = torch.tensor([0.64, 0.16, 0.04, 0.16], dtype=torch.float64)
    expected = torch.tensor(expected, dtype=torch.float64)
    assert_close(power_transform(p, alpha), expected / expected.sum())


@pytest.mark.parametrize("alpha", [0.0, *ALPHAS])
def test_power_transform_of_a_softmax_is_the_softmax_of_alpha_z(alpha):
    logits = probabilities().log() + 3
    assert_close(power_transform(logits.softmax(-1), alpha), (alpha * logits).softmax(-1))


@pytest.mark.parametrize("alpha", [0.0, *ALPHAS])
def test_zeros_stay_zero_and_count_nowhere(alpha):
    p = probabilities()
    padded = torch.cat([p, torch.zeros(6, 2, dtype=p.dtype)], dim=1)
    expected = torch.cat([power_transform(p, alpha), torch.zeros(6, 2, dtype=p.dtype)], dim=1)
    assert_close(power_transform(padded, alpha), expected)
    assert_close(stationary_threshold(padded, alpha), stationary_threshold(p, alpha))


@pytest.mark.parametrize("alpha", [0.0, *ALPHAS])
def test_one_hot_probabilities_and_their_threshold_of_one_stay(alpha):
    p = torch.eye(4, dtype=torch.float64)
    assert_close(power_transform(p, alpha), p)
    assert_close(stationary_threshold(p, alpha), torch.ones(4, dtype=p.dtype))


def test_power_transform_does_not_underflow_where_its_result_does_not():
    p = torch.tensor([1e-30, 1e-30], dtype=torch.float32)
    assert_close(power_transform(p, 2.0), torch.tensor([0.5, 0.5]), "float32")


def test_threshold_at_alpha_zero_is_one_over_the_number_of_classes():
    expected = torch.full((6,), 0.2, dtype=torch.float64)
    assert_close(stationary_threshold(probabilities(), 0), expected)


def test_threshold_at_alpha_one_is_exp_of_minus_the_entropy_and_the_limit():
    p = probabilities()
    expected = (p * p.log()).sum(-1).exp()
    assert_close(stationary_threshold(p, 1), expected)
    for alpha in (1 - 1e-6, 1 + 1e-6):
        assert_close(stationary_threshold(p, alpha), expected, "limit")


@pytest.mark.parametrize("alpha", [0.05, 0.25, 0.5, 1.5])
def test_threshold_is_the_formula_of_the_paper(alpha):
    p = probabilities()
    assert_close(stationary_threshold(p, alpha), (p**alpha).sum(-1) ** (1 / (alpha - 1)))


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple),
    alpha=st.floats(0, 3),
    seed=st.integers(0, 1000),
)
def test_probabilities_under_the_threshold_grow_and_those_above_shrink(shape, alpha, seed):
    p = probabilities(shape, seed)
    p_tampered = power_transform(p, alpha)
    threshold = stationary_threshold(p, alpha)
    assert threshold.shape == shape[:-1]
    # p' = p (p / threshold)^(alpha - 1): where p is the threshold, p' = p.
    assert_close(p_tampered, p * (p / threshold.unsqueeze(-1)) ** (alpha - 1))
    grows = (p_tampered - p) * (1 - alpha) >= -1e-12
    assert_close(grows | (p > threshold.unsqueeze(-1)), torch.ones_like(p, dtype=torch.bool))


@pytest.mark.parametrize("alpha", [0.0, *ALPHAS])
def test_uniform_probabilities_are_at_their_threshold_and_stay(alpha):
    uniform = torch.full((4,), 0.25, dtype=torch.float64)
    assert_close(stationary_threshold(uniform, alpha), uniform[0])
    assert_close(power_transform(uniform, alpha), uniform)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_and_shape_of_p_are_kept(dtype):
    p = probabilities((2, 3, 4)).to(dtype)
    for alpha in (0.0, 0.25, 1.0, torch.tensor(0.25)):
        assert power_transform(p, alpha).dtype == dtype
        assert power_transform(p, alpha).shape == (2, 3, 4)
        assert stationary_threshold(p, alpha).dtype == dtype
        assert stationary_threshold(p, alpha).shape == (2, 3)
