"""The loss of hidden states and a classifier on a CPU, by compiled code that keeps logits."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from softmax_gradient_tampering.loss.kernels.cpu.native_library import native_library
from softmax_gradient_tampering.loss.linear import kernel, native
from tests.loss.cases import Case, assert_equal
from tests.loss.test_linear import Arguments, make, of_hidden, of_logits, value_and_gradients

pytestmark = pytest.mark.skipif(
    native_library() is None, reason="needs Linux, g++ and a processor with AVX2"
)
# Fewer rows than the 6 features, as many, more, and so many that no block of logits is kept.
NUM_ROWS = (4, 6, 7, 40)
CASES = [
    Case(),
    Case(reduction="sum"),
    Case(reduction="none", ignored=True),
    Case(weighted=True, ignored=True),
]


@pytest.fixture(params=[1, 2, 30, 64, 100])
def block_size(request, monkeypatch):
    monkeypatch.setattr(kernel, "block_size", lambda *_: request.param)


# Rows, features and classes: no whole tile of a product, whole ones and a rest, several parts.
SIZES = ((1, 3, 50), (5, 64, 70), (6, 65, 33), (13, 300, 130), (70, 256, 300))
LAYOUTS = {
    "contiguous": lambda tensor: tensor,
    "columns adjacent": lambda tensor: tensor.t().contiguous().t(),
    "nothing adjacent": lambda tensor: tensor.repeat_interleave(2, 1)[:, ::2],
    "negative view": lambda tensor: (-tensor)._neg_view(),
}


@pytest.fixture(params=["AVX2", "AVX512"])
def instructions(request, monkeypatch):
    """The compiled code of these instructions, whichever the processor's best are."""
    if request.param == "AVX512" != torch.backends.cpu.get_cpu_capability():
        pytest.skip("needs a processor with AVX-512")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: request.param)
    native_library.cache_clear()
    yield
    native_library.cache_clear()


def make_large(num_rows: int, num_features: int, num_classes: int) -> Arguments:
    """As `make`, with so many features; logits of standard deviation 1."""
    arguments = make(Case(shape=(num_rows, num_classes)), torch.float32)
    torch.manual_seed(0)
    hidden = torch.randn(num_rows, num_features)
    weight = torch.randn(num_classes, num_features) / num_features**0.5
    return arguments._replace(hidden=hidden, weight=weight)


def assert_near_to_logits(arguments: Arguments, alpha: float) -> None:
    """Value and gradients are those of the logits in float64, within float32's rounding."""
    actual = value_and_gradients(of_hidden, arguments, alpha)
    tensors = {name: to_double(getattr(arguments, name)) for name in Arguments._fields[:4]}
    options = {name: to_double(value) for name, value in arguments.options.items()}
    double = arguments._replace(**tensors, options=options)
    expected = value_and_gradients(of_logits, double, alpha)
    for ours, truth in zip(actual, expected, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), truth, rtol=1e-5, atol=1e-6, equal_nan=True)


def to_double(value: Any) -> Any:
    is_float = isinstance(value, Tensor) and value.is_floating_point()
    return value.double() if is_float else value


@pytest.mark.parametrize("num_rows", NUM_ROWS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_and_gradients_are_those_of_the_logits(case, num_rows, block_size):
    case = replace(case, shape=(num_rows, 100))
    for alpha, has_bias in product((0.25, 1.0), (False, True)):
        arguments = make(case, torch.float32)
        arguments.target[1] = arguments.options["ignore_index"]
        if not has_bias:
            arguments = arguments._replace(bias=None)
        assert_near_to_logits(arguments, alpha)


@pytest.mark.parametrize("first_label", [0, 50, 99])
def test_excluded_classes_and_large_logits(first_label, block_size):
    arguments = make(Case(shape=(4, 100)), torch.float32)
    arguments.bias[:70] = -torch.inf
    arguments.bias[first_label] = 0
    arguments.weight[80] *= 100
    target = torch.full_like(arguments.target, first_label)
    assert_near_to_logits(arguments._replace(target=target), 0.25)


@pytest.mark.parametrize("num_rows", NUM_ROWS)
@pytest.mark.parametrize("needed", list(product((False, True), repeat=3))[1:], ids=str)
def test_only_the_gradients_that_are_needed_in_one_pass_or_two(needed, num_rows, block_size):
    arguments = make(Case(shape=(num_rows, 100)), torch.float32)
    expected = value_and_gradients(of_hidden, arguments, 0.25)[1:]
    leaves = [t.clone().requires_grad_(n) for t, n in zip(arguments[:3], needed, strict=True)]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    loss = of_hidden(Arguments(*leaves, *arguments[3:]), 0.25)
    first = torch.autograd.grad(loss, wanted, retain_graph=True)
    copies = [grad.clone() for grad in first]
    second = torch.autograd.grad(loss, wanted)
    of_needed = [grad for grad, is_needed in zip(expected, needed, strict=True) if is_needed]
    for grad, copy, again, truth in zip(first, copies, second, of_needed, strict=True):
        assert_equal(grad, copy)  # the second pass has not written to it
        torch.testing.assert_close(grad, again, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(grad, truth, rtol=1e-5, atol=1e-7)


def test_losses_that_live_at_once_do_not_share_what_they_keep(block_size):
    arguments = make(Case(shape=(6, 100)), torch.float32)
    weight = arguments.weight.clone().requires_grad_()
    others = [arguments.hidden, -3 * arguments.hidden]
    losses = [of_hidden(arguments._replace(hidden=h, weight=weight), 0.25) for h in others]
    together = [torch.autograd.grad(loss, weight)[0] for loss in losses]
    for hidden, grad in zip(others, together, strict=True):
        loss = of_hidden(arguments._replace(hidden=hidden, weight=weight), 0.25)
        assert_equal(grad, torch.autograd.grad(loss, weight)[0])


def test_weights_that_change_before_the_backward_pass_are_refused(block_size):
    arguments = make(Case(shape=(6, 100)), torch.float32)
    weight = arguments.weight.clone().requires_grad_()
    loss = of_hidden(arguments._replace(weight=weight), 0.25)
    with torch.no_grad():
        weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_products_are_right_of_any_size_and_layout(sizes, instructions):
    arguments = make_large(*sizes)
    for layout in LAYOUTS.values():
        hidden, weight = layout(arguments.hidden), layout(arguments.weight)
        assert_equal(hidden, arguments.hidden)
        assert_near_to_logits(arguments._replace(hidden=hidden, weight=weight), 0.25)


def test_results_do_not_depend_on_the_number_of_threads():
    before = torch.get_num_threads()
    for sizes in ((70, 100, 1000), (500, 30, 500)):
        arguments, results = make_large(*sizes), []
        try:
            for num_threads in (1, 2, 3, 4):
                torch.set_num_threads(num_threads)
                results.append(value_and_gradients(of_hidden, arguments, 0.25))
        finally:
            torch.set_num_threads(before)
        for other in results[1:]:
            for one, two in zip(results[0], other, strict=True):
                assert_equal(one, two)


def test_a_product_of_no_depth_is_zero_or_adds_nothing():
    left, right = torch.empty(7, 0), torch.empty(0, 70)
    to = torch.ones(7, 70)
    native._multiply(left, right, to, adds=True)
    assert_equal(to, torch.ones(7, 70))
    native._multiply(left, right, to)
    assert_equal(to, torch.zeros(7, 70))
