"""The operators, called as a graph calls them: torch's checks of them, and their derivatives."""

from itertools import product
from typing import Any

import pytest
import torch

from softmax_gradient_tampering import tampered_cross_entropy, tampered_linear_cross_entropy
from softmax_gradient_tampering.loss.linear import kernel as linear
from tests.loss.cases import DTYPES, FEW_CASES, Case, assert_equal

OPERATORS = torch.ops.softmax_gradient_tampering
KERNELS = ("auto", "reference", "blocks", "cpu")
ALPHA = 0.25


def of_operator(case: Case, dtype: torch.dtype, kernel: str = "auto") -> tuple[Any, ...]:
    """The arguments of the cross-entropy's operator, the logits as a leaf."""
    logits, target, options = case.make(dtype)
    return logits.requires_grad_(), target, ALPHA, None, *options.values(), dtype, kernel


def of_linear_operator(case: Case, dtype: torch.dtype) -> tuple[Any, ...]:
    """The arguments of the linear operator, hidden states, weight and bias as leaves."""
    logits, target, options = case.make(dtype)
    generator = torch.Generator().manual_seed(1)
    num_classes = logits.shape[1]
    head = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in ((logits.shape[0], 3), (num_classes, 3), (num_classes,))
    )
    return *head, False, target, ALPHA, None, *options.values(), dtype


def opcheck(operator: Any, arguments: tuple[Any, ...]) -> None:
    """All of torch's checks, those of static and of dynamic shapes among them."""
    names = ("schema", "autograd_registration", "faketensor")
    shapes = ("aot_dispatch_static", "aot_dispatch_dynamic")
    torch.library.opcheck(
        operator, arguments, test_utils=[f"test_{name}" for name in (*names, *shapes)]
    )


# Every pair of options, kernel and dtype; all three in the slow suite.
CHECKED = [
    pytest.param(case, kernel, dtype, marks=() if (i + j + k) % 4 == 0 else pytest.mark.slow)
    for (i, case), (j, kernel), (k, dtype) in product(
        enumerate(FEW_CASES), enumerate(KERNELS), enumerate(DTYPES)
    )
]


@pytest.mark.parametrize(("case", "kernel", "dtype"), CHECKED)
def test_the_operators_pass_opcheck(case, kernel, dtype):
    arguments = of_operator(case, dtype, kernel)
    opcheck(OPERATORS.cross_entropy.default, arguments)
    loss, stats = OPERATORS.cross_entropy(*arguments)
    incoming = torch.ones_like(loss)
    opcheck(
        OPERATORS.cross_entropy_backward.default, (incoming, arguments[0], stats, *arguments[1:])
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [c for c in FEW_CASES if len(c.shape) == 2], ids=str)
def test_the_linear_operators_pass_opcheck(case, dtype, monkeypatch):
    monkeypatch.setattr(linear, "block_size", lambda *_: 3)
    arguments = of_linear_operator(case, dtype)
    opcheck(OPERATORS.linear_cross_entropy.default, arguments)
    loss, *stats = OPERATORS.linear_cross_entropy(*arguments)
    head, rest = arguments[:3], arguments[4:]
    backward = torch.ones_like(loss), *head, *stats, [True, False, True], *rest
    opcheck(OPERATORS.linear_cross_entropy_backward.default, backward)


def test_the_generic_operators_pass_opcheck():
    value, surrogate = (torch.randn(3, 2, requires_grad=True) for _ in range(2))
    opcheck(OPERATORS.report.default, (value, surrogate))
    opcheck(OPERATORS.at_zero.default, (value,))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_operator_that_is_called_directly_has_the_gradient(dtype, kernel):
    logits, *others = of_operator(Case(), dtype, kernel)
    loss, stats = OPERATORS.cross_entropy(logits, *others)
    assert not stats.requires_grad
    expected = tampered_cross_entropy(logits, others[0], ALPHA, kernel=kernel)
    assert_equal(loss, expected)
    assert_equal(*(torch.autograd.grad(value, logits)[0] for value in (loss, expected)))


def test_a_linear_operator_that_is_called_directly_has_the_gradients():
    hidden, weight, bias, *others = of_linear_operator(Case(), torch.float32)
    for is_differentiated in (False, True):  # it need not be said
        others[0] = is_differentiated
        loss, *_ = OPERATORS.linear_cross_entropy(hidden, weight, bias, *others)
        expected = tampered_linear_cross_entropy(hidden, weight, others[1], ALPHA, bias)
        assert_equal(loss, expected)
        for ours, eager in zip(
            torch.autograd.grad(loss, (hidden, weight, bias)),
            torch.autograd.grad(expected, (hidden, weight, bias)),
            strict=True,
        ):
            assert_equal(ours, eager)


@pytest.mark.parametrize("which", ["target", "class weight"])
def test_an_operator_refuses_a_derivative_that_it_does_not_have(which):
    arguments = [*of_operator(Case(soft=True, weighted=True), torch.float32)]
    arguments[1 if which == "target" else 4].requires_grad_()
    with pytest.raises(NotImplementedError, match=r"tampered_cross_entropy and .* have"):
        OPERATORS.cross_entropy(*arguments)


def test_an_operator_checks_alpha():
    arguments = [*of_operator(Case(), torch.float32)]
    for alpha in ((-1.0, None), (1.0, torch.tensor(-1.0))):
        arguments[2:4] = alpha
        with pytest.raises(ValueError, match="at least 0, got -1"):
            OPERATORS.cross_entropy(*arguments)


@pytest.mark.parametrize(
    "changes",
    [
        {0: torch.zeros(7)},
        {0: torch.zeros(7, 5, dtype=torch.int64)},
        {1: torch.zeros(6, dtype=torch.int64)},
        {1: torch.zeros(7, dtype=torch.int32)},
        {1: torch.zeros(7, 4)},
        {4: torch.ones(4)},
    ],
    ids=str,
)
def test_an_operator_refuses_what_does_not_fit(changes):
    arguments = [*of_operator(Case(), torch.float32)]
    _, stats = OPERATORS.cross_entropy(*arguments)
    for place, argument in changes.items():
        arguments[place] = argument
    match = r"the operator takes logits \(N, C, d1, ...\)"
    for is_grad_enabled in (False, True):
        with torch.set_grad_enabled(is_grad_enabled), pytest.raises(ValueError, match=match):
            OPERATORS.cross_entropy(*arguments)
    backward = torch.ones(()), arguments[0], stats, *arguments[1:]
    with torch.inference_mode(), pytest.raises(ValueError, match=match):
        OPERATORS.cross_entropy_backward(*backward)


def test_a_backward_operator_refuses_the_gradient_and_statistics_of_another_loss():
    logits, *others = of_operator(Case(), torch.float32)
    _, stats = OPERATORS.cross_entropy(logits, *others)
    for wrong in ((torch.ones(7), stats), (torch.ones(()), torch.ones(7))):
        with pytest.raises(ValueError, match="takes a gradient of shape"):
            OPERATORS.cross_entropy_backward(wrong[0], logits, wrong[1], *others)


@pytest.mark.parametrize("place", [0, 1, 4])
def test_a_linear_operator_refuses_what_does_not_fit(place):
    arguments = [*of_linear_operator(Case(), torch.float32)]
    arguments[place] = arguments[place][:3]
    with pytest.raises((ValueError, RuntimeError), match=r"hidden|bias"):
        OPERATORS.linear_cross_entropy(*arguments)
