"""The loss of hidden states and a classifier: that of the logits, without them."""

import re
import warnings
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.autograd.forward_ad as fwd
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, vmap

from softmax_gradient_tampering import tampered_cross_entropy, tampered_linear_cross_entropy
from softmax_gradient_tampering.loss.linear import kernel as linear
from softmax_gradient_tampering.loss.linear import products
from tests.loss.cases import (
    ALPHAS,
    DTYPES,
    OPTION_CASES,
    Case,
    assert_close,
    assert_equal,
    surrogate,
)
from tests.loss.peak_memory import peak_memory

NUM_FEATURES = 6
SHAPE = (7, 5)  # of the logits, as everywhere in this room
# In classes: one at a time, a last block that is not full, all but one, all.
BLOCK_SIZES = (1, 2, 4, 5)


class Arguments(NamedTuple):
    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    target: Tensor
    options: dict[str, Any]


def make(case: Case, dtype: torch.dtype = torch.float64, seed: int = 0) -> Arguments:
    """Hidden states and a classifier; target and options as `case` makes them."""
    _, target, options = case.make(dtype, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    num_rows, num_classes = case.shape

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    hidden, weight = randn(num_rows, NUM_FEATURES), randn(num_classes, NUM_FEATURES)
    return Arguments(hidden, weight, randn(num_classes), target, options)


def of_hidden(arguments: Arguments, alpha: Any) -> Tensor:
    hidden, weight, bias, target, options = arguments
    class_weight = options["weight"]
    options = {name: value for name, value in options.items() if name != "weight"}
    return tampered_linear_cross_entropy(
        hidden, weight, target, alpha, bias, class_weight=class_weight, **options
    )


def of_logits(arguments: Arguments, alpha: Any, loss_fn=tampered_cross_entropy) -> Tensor:
    hidden, weight, bias, target, options = arguments
    logits = F.linear(hidden, weight, bias).reshape(-1, weight.shape[0])
    target = target.reshape(-1, *target.shape[hidden.dim() - 1 :])
    loss = loss_fn(logits, target, alpha, **options)
    return loss.reshape(hidden.shape[:-1]) if options["reduction"] == "none" else loss


def value_and_gradients(loss_fn, arguments: Arguments, alpha: Any) -> list[Tensor]:
    """The loss and the gradients of hidden, weight and bias, as cases.value_and_gradient."""
    leaves: list[Any] = [t if t is None else t.detach().requires_grad_() for t in arguments[:3]]
    loss = loss_fn(
        Arguments(leaves[0], leaves[1], leaves[2], arguments.target, arguments.options), alpha
    )
    incoming = 1 + torch.arange(loss.numel(), dtype=torch.float64) / 7
    inputs = [leaf for leaf in leaves if leaf is not None]
    grads = torch.autograd.grad(loss, inputs, incoming.reshape(loss.shape).to(loss))
    return [loss.detach(), *grads]


def assert_equals_logits(arguments: Arguments, alpha: Any) -> None:
    actual = value_and_gradients(of_hidden, arguments, alpha)
    expected = value_and_gradients(of_logits, arguments, alpha)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert_close(ours, theirs)


@pytest.fixture(params=BLOCK_SIZES, ids=lambda size: f"blocks of {size}")
def block_size(request, monkeypatch):
    monkeypatch.setattr(linear, "block_size", lambda *_: request.param)
    return request.param


@pytest.fixture
def two_blocks(monkeypatch):
    monkeypatch.setattr(linear, "block_size", lambda *_: 3)


@pytest.mark.parametrize("case", OPTION_CASES, ids=str)
def test_value_and_gradients_are_those_of_the_logits(case, block_size):
    for alpha in (0.0, 0.25, 1.0, torch.tensor(0.25), torch.tensor(0.0)):
        assert_equals_logits(make(case), alpha)


@pytest.mark.parametrize("shape", [(5,), (1, 5), (2, 3, 5), (2, 0, 5), (2, 3, 2, 5)], ids=str)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_hidden_states_of_any_dimensions(shape, soft, reduction, two_blocks):
    case = Case(reduction=reduction, smoothing=0.1)
    hidden, weight, bias, _, options = make(case)
    num_rows = torch.Size(shape[:-1]).numel()
    hidden = torch.randn(num_rows, NUM_FEATURES, dtype=torch.float64)
    hidden = hidden.reshape(*shape[:-1], NUM_FEATURES)
    target = torch.randint(5, shape[:-1])
    if soft:
        target = torch.randn(shape, dtype=torch.float64).softmax(-1)
    arguments = Arguments(hidden, weight, bias, target, options)
    assert_equals_logits(arguments, 0.25)
    if reduction == "none":
        assert of_hidden(arguments, 0.25).shape == shape[:-1]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_an_empty_batch_is_as_torch_has_it(reduction, dtype, two_blocks):
    _, weight, bias, _, options = make(Case(reduction=reduction), dtype)
    hidden, target = weight.new_zeros(0, NUM_FEATURES), torch.zeros(0, dtype=torch.int64)
    loss, *grads = value_and_gradients(
        of_hidden, Arguments(hidden, weight, bias, target, options), 0.25
    )
    assert_equal(loss, F.cross_entropy(weight.new_zeros(0, 5), target, reduction=reduction))
    assert all(grad.eq(0).all() for grad in grads)


def test_an_all_ignored_batch_is_nan_with_gradient_zero(two_blocks):
    for dtype in DTYPES:
        arguments = make(Case(), dtype)
        arguments = arguments._replace(target=torch.full_like(arguments.target, -100))
        loss, *grads = value_and_gradients(of_hidden, arguments, 0.25)
        assert loss.isnan()
        assert all(grad.eq(0).all() for grad in grads)


def test_no_bias(two_blocks):
    assert_equals_logits(make(Case())._replace(bias=None), 0.25)


@pytest.mark.parametrize("alpha", [0.0, 0.25, torch.tensor(0.0)], ids=["0", "0.25", "tensor"])
def test_classes_excluded_by_a_bias_of_minus_infinity(alpha, block_size):
    arguments = make(Case())
    arguments.bias[arguments.target[0] - 1] = -torch.inf
    arguments.bias[arguments.target[0] - 2] = -torch.inf
    arguments = arguments._replace(target=arguments.target[:1].expand(7))
    assert_equals_logits(arguments, alpha)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8], ids=str)
def test_labels_of_any_integer_dtype(dtype, two_blocks):
    arguments = make(Case())
    expected = value_and_gradients(of_hidden, arguments, 0.25)
    arguments = arguments._replace(target=arguments.target.to(dtype))
    actual = value_and_gradients(of_hidden, arguments, 0.25)
    for ours, of_int64 in zip(actual, expected, strict=True):
        assert_equal(ours, of_int64)


def sequences() -> Arguments:
    """Four sequences of three hidden states."""
    arguments = make(Case(shape=(12, 5)))
    hidden, target = arguments.hidden.reshape(4, 3, -1), arguments.target.reshape(4, 3)
    return arguments._replace(hidden=hidden, target=target)


def test_tensors_that_are_not_contiguous(two_blocks):
    arguments = sequences()
    expected = value_and_gradients(of_hidden, arguments, 0.25)
    hidden, weight, bias, target, options = arguments
    turned = Arguments(
        hidden.transpose(0, 1).contiguous().transpose(0, 1),
        weight.t().contiguous().t(),
        bias.repeat_interleave(2)[::2],
        target.t().contiguous().t(),
        options,
    )
    assert not any(tensor.is_contiguous() for tensor in turned[:4])
    actual = value_and_gradients(of_hidden, turned, 0.25)
    for ours, of_contiguous in zip(actual, expected, strict=True):
        assert_close(ours, of_contiguous)


@pytest.mark.parametrize("needed", list(product((False, True), repeat=3))[1:], ids=str)
def test_only_the_gradients_that_are_needed(needed, two_blocks):
    arguments = make(Case())
    expected = value_and_gradients(of_hidden, arguments, 0.25)[1:]
    leaves = [t.clone().requires_grad_(n) for t, n in zip(arguments[:3], needed, strict=True)]
    of_hidden(Arguments(*leaves, *arguments[3:]), 0.25).backward()
    for leaf, is_needed, gradient in zip(leaves, needed, expected, strict=True):
        assert (leaf.grad is not None) == is_needed
        if is_needed:
            assert_equal(leaf.grad, gradient)


def test_without_gradients_the_value_is_the_same_and_needs_no_alpha(two_blocks):
    arguments = make(Case())
    expected = value_and_gradients(of_hidden, arguments, 0.25)[0]
    assert_equal(of_hidden(arguments, 0.25), expected)
    with torch.no_grad():
        leaf = arguments._replace(weight=arguments.weight.clone().requires_grad_())
        assert not of_hidden(leaf, 0.25).requires_grad


def test_a_graph_that_is_kept_gives_the_same_gradients_again(two_blocks):
    arguments = make(Case())
    weight = arguments.weight.clone().requires_grad_()
    loss = of_hidden(arguments._replace(weight=weight), 0.25)
    (first,) = torch.autograd.grad(loss, weight, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(3 * loss, weight)
    assert_equal(first, kept)
    assert_close(second, 3 * first)


def test_inputs_are_not_written_to(two_blocks):
    for soft, dtype in product((False, True), (torch.bfloat16, torch.float64)):
        arguments = make(Case(soft=soft, weighted=True, smoothing=0.1), dtype)
        tensors = (*arguments[:4], arguments.options["weight"])
        copies = [tensor.clone() for tensor in tensors]
        value_and_gradients(of_hidden, arguments, 0.25)
        for tensor, copy in zip(tensors, copies, strict=True):
            assert_equal(tensor, copy)


# Accuracy: as tests/loss/test_precision.py has it. Torch's own way rounds the logits and their
# gradient to the dtype, which here are float32; both round the gradients once, at the end.


@pytest.mark.parametrize("is_mixed", [False, True], ids=["float32 products", "mixed products"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(64, 5), (64, 1000)], ids=str)
def test_errors_are_at_most_those_of_torch_plus_one_ulp(shape, dtype, is_mixed, monkeypatch):
    if is_mixed:
        pretend_mixed_products(monkeypatch)
    largest = {loss_fn: [0.0] * 4 for loss_fn in (of_hidden, of_torch)}
    for seed, alpha, reduction in product(range(12), ALPHAS, ("mean", "none")):
        arguments = make(Case(shape=shape, weighted=True, reduction=reduction), dtype, seed)
        exact = Arguments(*map(double, arguments[:4]), {**arguments.options})
        exact.options["weight"] = double(arguments.options["weight"])
        truths = value_and_gradients(of_torch, exact, alpha)
        for loss_fn, errors in largest.items():
            results = value_and_gradients(loss_fn, arguments, alpha)
            for index, (result, truth) in enumerate(zip(results, truths, strict=True)):
                errors[index] = max(errors[index], error_in_ulps(result, truth))
    for ours, torchs in zip(largest[of_hidden], largest[of_torch], strict=True):
        assert ours <= torchs + 1


def of_torch(arguments: Arguments, alpha: float) -> Tensor:
    """The value of torch's own loss, and the gradients of the surrogate."""

    def loss_fn(logits, target, alpha, **options):
        value = F.cross_entropy(logits, target, **options).detach()
        at_alpha_z = surrogate(logits, target, alpha, **options)
        return value + (at_alpha_z - at_alpha_z.detach())

    return of_logits(arguments, alpha, loss_fn)


def double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def error_in_ulps(result: Tensor, truth: Tensor) -> float:
    largest = truth.abs().max().to(result.dtype)
    ulp = torch.nextafter(largest, torch.full_like(largest, torch.inf)) - largest
    return ((result.double() - truth).abs().max() / ulp.double()).item()


def pretend_mixed_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: products of half types, summed and given in float32."""

    def multiply(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
        assert left.dtype == right.dtype
        return left.to(dtype) @ right.to(dtype)

    monkeypatch.setattr(products, "has_mixed_product", lambda tensor: tensor.dtype.itemsize == 2)
    monkeypatch.setattr(linear, "product", multiply)


@pytest.mark.parametrize("incoming", [2.0**-10, 1.0, 2.0**15])
def test_float16_gradients_do_not_depend_on_the_loss_scale(incoming, monkeypatch):
    pretend_mixed_products(monkeypatch)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(64, 4, generator=generator).half()
    weight = torch.randn(2000, 4, generator=generator).half().requires_grad_()
    target = torch.randint(2000, (64,), generator=generator)
    loss = tampered_linear_cross_entropy(hidden, weight, target, 0.25)
    (actual,) = torch.autograd.grad(incoming * loss, weight)
    weight = weight.detach().double().requires_grad_()
    loss = tampered_linear_cross_entropy(hidden.double(), weight, target, 0.25)
    (truth,) = torch.autograd.grad(incoming * loss, weight)
    # p' / 64 of 2000 classes, some 1e-5, is a subnormal number of float16, and times 2^-10 it is
    # none at all. So it may not be rounded before it is scaled: an ulp of the largest number
    # remains, and half the least number where that is more.
    assert (actual.double() - truth).abs().max() <= 2**-10 * truth.abs().max() + 2**-25


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(256, 32, 4000), (1000, 16, 1200), (20, 64, 50_000)], ids=str)
def test_peak_memory_is_a_part_of_the_logits(shape, dtype):
    num_rows, num_features, num_classes = shape
    hidden = torch.randn(num_rows, num_features).to(dtype).requires_grad_()
    weight = torch.randn(num_classes, num_features).to(dtype).requires_grad_()
    target = torch.randint(num_classes, (num_rows,))

    def forward_and_backward(loss_fn) -> int:
        def call() -> None:
            hidden.grad = weight.grad = None
            loss_fn().backward()

        call()
        gradients = hidden.grad.nbytes + weight.grad.nbytes
        hidden.grad = weight.grad = None

        def measured() -> None:
            torch.autograd.grad(loss_fn(), (hidden, weight))

        return peak_memory(measured) - gradients

    logits = num_rows * num_classes * dtype.itemsize
    whole = forward_and_backward(lambda: F.cross_entropy(F.linear(hidden, weight), target))
    ours = forward_and_backward(lambda: tampered_linear_cross_entropy(hidden, weight, target, 0.25))
    assert whole > logits  # the measurement sees the logits where they are
    row_numbers = 40 * 8 * num_rows  # 40 numbers a row: sums, labels and the like
    in_float32 = 0 if dtype == torch.float32 else 4 * weight.numel()  # less than that is used
    assert ours < 0.1 * logits + row_numbers + in_float32


@pytest.mark.parametrize("num_rows", [0, 1, 7, 512, 100_000])
@pytest.mark.parametrize("num_classes", [1, 10, 32_000, 128_256])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_blocks_are_within_their_limits(num_rows, num_classes, dtype):
    size = linear.block_size(num_rows, num_classes, torch.empty(0, dtype=dtype), False)
    assert 1 <= size <= num_classes
    itemsize = max(4, dtype.itemsize)
    part = size * linear.BUFFERS * itemsize / (num_classes * dtype.itemsize)
    assert part < 0.1 or size * num_rows <= linear.SMALLEST or size == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_is_that_of_linear_and_loss(dtype, two_blocks):
    arguments = make(Case(weighted=True), torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        actual = value_and_gradients(of_hidden, arguments, 0.25)
        expected = value_and_gradients(of_logits, arguments, 0.25)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == theirs.dtype == torch.float32
        # The logits are rounded to the half type in one of them.
        assert (ours - theirs).abs().max() <= 2**-6 * theirs.abs().max()


@pytest.mark.parametrize("case", [Case(), Case(soft=True, weighted=True, smoothing=0.1)], ids=str)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_with_fullgraph_equals_eager(case, backend, two_blocks):
    torch.compiler.reset()
    arguments = make(case)
    compiled = torch.compile(of_hidden, fullgraph=True, backend=backend)
    actual = value_and_gradients(compiled, arguments, 0.25)
    for ours, eager in zip(actual, value_and_gradients(of_hidden, arguments, 0.25), strict=True):
        assert_close(ours, eager)


@pytest.mark.parametrize("case", [Case(), Case(soft=True, reduction="none")], ids=str)
def test_second_derivatives_are_right(case, two_blocks):
    arguments = make(case)
    leaves = [tensor.requires_grad_() for tensor in arguments[:3]]

    def loss_fn(*head):
        return of_hidden(Arguments(*head, *arguments[3:]), 0.25)

    assert torch.autograd.gradgradcheck(loss_fn, leaves)


def test_func_transforms_are_right(two_blocks):
    arguments = make(Case())
    expected = value_and_gradients(of_hidden, arguments, 0.25)[1]

    def loss_fn(hidden, target):
        return of_hidden(arguments._replace(hidden=hidden, target=target), 0.25)

    assert_close(grad(loss_fn)(arguments.hidden, arguments.target), expected)
    one_by_one = vmap(grad(loss_fn))(arguments.hidden, arguments.target)
    assert_close(one_by_one / len(arguments.hidden), expected)


@pytest.mark.parametrize("argument", ["hidden", "weight", "bias"])
def test_forward_mode_is_that_of_the_logits(argument):
    arguments = make(Case())
    with fwd.dual_level():
        primal = getattr(arguments, argument)
        dual = arguments._replace(**{argument: fwd.make_dual(primal, torch.ones_like(primal))})
        actual, expected = (
            fwd.unpack_dual(loss_fn(dual, 0.25)).tangent for loss_fn in (of_hidden, of_logits)
        )
    assert_close(actual, expected)
    assert actual != 0


def test_gradients_of_target_and_class_weight_are_those_of_the_logits():
    arguments = make(Case(soft=True, weighted=True))
    leaves = (arguments.target.requires_grad_(), arguments.options["weight"].requires_grad_())
    actual = torch.autograd.grad(of_hidden(arguments, 0.25), leaves)
    expected = torch.autograd.grad(of_logits(arguments, 0.25), leaves)
    for ours, theirs in zip(actual, expected, strict=True):
        assert_close(ours, theirs)


FITS = r"does not fit hidden of shape \(7, 6\): class indices \(integers\) are of shape \(7,\), "
# name: (replaced among the arguments, replaced among the options, what ours says; None: torch's)
WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str | None]] = {
    "label above the classes": ({"target": torch.tensor([0, 1, 2, 5, 0, 0, 0])}, {}, None),
    "label below zero": ({"target": torch.tensor([0, 1, 2, -1, 0, 0, 0])}, {}, None),
    "fewer labels": ({"target": torch.tensor([0, 1])}, {}, rf"target of shape \(2,\) .* {FITS}"),
    "labels of a column": ({"target": torch.zeros(7, 1, dtype=torch.int64)}, {}, FITS),
    "soft target of another shape": (
        {"target": torch.ones(7, 4, dtype=torch.float64)},
        {},
        f"{FITS}class probabilities .floating-point. of .7, 5.",
    ),
    "labels that are no integers": ({"target": torch.ones(7, dtype=torch.float64)}, {}, FITS),
    "ignored index of a soft target": (
        {"target": torch.ones(SHAPE, dtype=torch.float64)},
        {"ignore_index": 0},
        None,
    ),
    "bool labels": (
        {"target": torch.ones(7, dtype=torch.bool)},
        {},
        r"expected target of torch.int64, or of .* got torch.bool",
    ),
    "hidden without dimensions": (
        {"hidden": torch.tensor(1.0, dtype=torch.float64)},
        {},
        r"expected hidden of shape \(N, D\), \(D,\) or \(..., D\), got a 0-d tensor",
    ),
    "hidden of integers": (
        {"hidden": torch.ones(7, NUM_FEATURES, dtype=torch.int64)},
        {},
        r"expected hidden of a floating-point dtype, got torch.int64",
    ),
    "weight of one class": (
        {"weight": torch.zeros(NUM_FEATURES, dtype=torch.float64)},
        {},
        r"expected weight of shape \(C, D\), got \(6,\)",
    ),
    "weight of other features": (
        {"weight": torch.zeros(5, 3, dtype=torch.float64)},
        {},
        r"expected equal last dimensions D of hidden and weight, got 6 and 3",
    ),
    "weight of another dtype": (
        {"weight": torch.zeros(5, NUM_FEATURES)},
        {},
        r"expected weight of hidden's dtype torch.float64, got torch.float32",
    ),
    "bias of another device": (
        {"bias": torch.zeros(5, dtype=torch.float64, device="meta")},
        {},
        r"expected bias on hidden's device cpu, got meta",
    ),
    "bias of other classes": (
        {"bias": torch.zeros(4, dtype=torch.float64)},
        {},
        r"expected bias of shape \(5,\), as weight has classes, got \(4,\)",
    ),
    "class weight of other classes": (
        {},
        {"weight": torch.ones(4, dtype=torch.float64)},
        r"expected class_weight of shape \(5,\), got \(4,\)",
    ),
    "class weight of another dtype": (
        {},
        {"weight": torch.ones(5)},
        r"expected class_weight of hidden's dtype torch.float64, got torch.float32",
    ),
    "unknown reduction": ({}, {"reduction": "average"}, None),
    "smoothing above 1": ({}, {"label_smoothing": 1.1}, None),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_torch_refuses_is_refused_in_words_of_the_arguments(name):
    arguments, options, words = WRONG[name]
    wrong = make(Case())._replace(**arguments)
    wrong = wrong._replace(options=wrong.options | options)
    with pytest.raises((ValueError, RuntimeError, IndexError)) as torchs:
        F.cross_entropy(F.linear(*wrong[:3]), wrong.target, **wrong.options)
    with pytest.raises(torchs.type, match=words or re.escape(str(torchs.value))):
        of_hidden(wrong, 0.25)


@pytest.mark.parametrize("name", ["hidden", "weight", "bias", "target", "class_weight"])
def test_what_is_not_dense_is_refused_by_its_name(name):
    arguments = make(Case(weighted=True))
    named = {**arguments._asdict(), "class_weight": arguments.options["weight"]}
    sparse = named[name].to_sparse()
    wrong = (
        arguments._replace(options=arguments.options | {"weight": sparse})
        if name == "class_weight"
        else arguments._replace(**{name: sparse})
    )
    with pytest.raises(RuntimeError, match=rf"expected {name} of a dense layout, got torch.sparse"):
        of_hidden(wrong, 0.25)


@pytest.mark.parametrize("name", ["hidden", "weight", "bias", "target", "class_weight"])
def test_what_is_no_tensor_is_refused_by_its_name(name):
    wrong = [[1.0]] if name == "hidden" else np.ones(5, np.float32)
    arguments = make(Case())
    if name == "class_weight":
        arguments = arguments._replace(options=arguments.options | {"weight": wrong})
    else:
        arguments = arguments._replace(**{name: wrong})
    with pytest.raises(TypeError, match=rf"^{name} must be a tensor, not .*as_tensor"):
        of_hidden(arguments, 0.25)


def test_a_target_that_does_not_fit_a_sequence_is_refused():
    arguments = sequences()
    with pytest.raises(ValueError, match=r"target of shape \(4,\) .* does not fit hidden"):
        of_hidden(arguments._replace(target=arguments.target[:, 0]), 0.25)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_k_dimensional_weight_gives_the_k_dimensional_loss(soft, reduction):
    hidden, _, _, _, options = make(Case(reduction=reduction, weighted=True, smoothing=0.1))
    weight = torch.randn(5, 2, 3, NUM_FEATURES, dtype=torch.float64)
    bias = torch.randn(5, 2, 3, dtype=torch.float64)
    target = torch.randint(5, (7, 2, 3))
    if soft:
        target = torch.rand(7, 5, 2, 3, dtype=torch.float64)

    def of_whole_logits(arguments: Arguments, alpha: float) -> Tensor:
        logits = torch.einsum("nd,c...d->nc...", arguments.hidden, arguments.weight)
        assert arguments.bias is not None
        return tampered_cross_entropy(logits + arguments.bias, target, alpha, **options)

    arguments = Arguments(hidden, weight, bias, target, options)
    actual = value_and_gradients(of_hidden, arguments, 0.25)
    expected = value_and_gradients(of_whole_logits, arguments, 0.25)
    for ours, theirs in zip(actual, expected, strict=True):
        assert_close(ours, theirs)
    if hasattr(F, "linear_cross_entropy"):
        torchs = F.linear_cross_entropy(
            hidden, weight, target, linear_bias=bias, **{**options, "ignore_index": None}
        )
        assert_close(of_hidden(arguments, 1.0), torchs)


def test_a_k_dimensional_weight_takes_rows_alone():
    arguments = sequences()._replace(weight=torch.ones(5, 2, NUM_FEATURES).double(), bias=None)
    with pytest.raises(
        RuntimeError, match=r"K-dimensional weight .* takes hidden of shape \(N, D\)"
    ):
        of_hidden(arguments, 0.25)


@pytest.mark.parametrize("alpha", [-0.1, float("nan"), torch.ones(2)], ids=str)
def test_alpha_is_validated(alpha):
    with pytest.raises(ValueError, match="alpha"):
        of_hidden(make(Case()), alpha)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", [Case(weighted=True), Case(soft=True, reduction="none")], ids=str)
def test_a_gpu_gives_what_a_cpu_gives_and_is_not_waited_for(case, dtype):
    arguments = make(case, dtype)
    expected = value_and_gradients(of_hidden, arguments, 0.25)
    options = {
        name: value.cuda() if isinstance(value, Tensor) else value
        for name, value in arguments.options.items()
    }
    on_gpu = Arguments(*(tensor.cuda() for tensor in arguments[:4]), options)
    of_hidden(on_gpu, 0.25)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = of_hidden(on_gpu._replace(weight=on_gpu.weight.requires_grad_()), 0.25)
        loss.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for ours, of_cpu in zip(value_and_gradients(of_hidden, on_gpu, 0.25), expected, strict=True):
        # Sums in another order, and in half types the logits' gradient rounded.
        error = (ours.cpu().double() - of_cpu.double()).abs().max()
        assert error <= 8 * torch.finfo(dtype).eps * of_cpu.double().abs().max()


def test_a_jit_trace_has_the_value_and_the_gradients():
    arguments = make(Case())

    def loss_fn(hidden: Tensor, weight: Tensor) -> Tensor:
        return tampered_linear_cross_entropy(hidden, weight, arguments.target, 0.25)

    head = [torch.randn_like(tensor).requires_grad_() for tensor in arguments[:2]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and shapes become constants
        traced = torch.jit.trace(loss_fn, tuple(arguments[:2]))
    actual, expected = traced(*head), loss_fn(*head)
    assert_close(actual, expected)
    for ours, eager in zip(
        torch.autograd.grad(actual, head), torch.autograd.grad(expected, head), strict=True
    ):
        assert_close(ours, eager)
