"""logit_statistics: the four numbers that the published code prints."""

from pathlib import Path

import numpy as np
import pytest
import torch

from softmax_gradient_tampering import LogitStatistics, logit_statistics
from tests.loss.cases import assert_close, assert_equal

GOLDEN = Path(__file__).parent / "golden" / "published_logit_statistics.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


# a: 8 x 10; b: 16 x 1000; c: all negative; d: all zero; e: one row; f: integers.
@pytest.mark.parametrize("name", "abcdef")
def test_statistics_are_the_published_ones(golden, name):
    actual = torch.stack(logit_statistics(golden[f"logits_{name}"]))
    assert_close(actual, golden[f"statistics_{name}"].float(), "float32")


def test_known_answers():
    logits = torch.tensor([[3.0, 4.0], [-3.0, -5.0]])
    expected = LogitStatistics(
        norm=torch.tensor((5 + 34**0.5) / 2),
        mean=torch.tensor((3.5 + 4) / 2),
        max=torch.tensor((4 + 3) / 2),
        var=torch.tensor((0.5 + 2) / 2),
    )
    for name, actual in logit_statistics(logits)._asdict().items():
        assert_close(actual, getattr(expected, name), "float32")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_statistics_are_float32_for_every_dtype(dtype):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 10, generator=generator).to(dtype)
    for actual, expected in zip(
        logit_statistics(logits), logit_statistics(logits.float()), strict=True
    ):
        assert_equal(actual, expected)
        assert actual.shape == ()
        assert actual.dtype == torch.float32


def test_half_logits_do_not_overflow():
    statistics = logit_statistics(torch.full((2, 10), 6e4, dtype=torch.float16))
    assert all(value.isfinite() for value in statistics)


def test_statistics_carry_no_gradient_and_leave_the_logits_as_they_are():
    logits = torch.arange(6.0).reshape(2, 3).requires_grad_()
    statistics = logit_statistics(logits)
    assert not any(value.requires_grad for value in statistics)
    assert_equal(logits.detach(), torch.arange(6.0).reshape(2, 3))
