"""Graphs that hold the loss train as the eager call does, however they were made.

A graph that is exported or traced may be made without a gradient in mind and differentiated
later on: its derivative is that of the operators in it.
"""

import io
import tempfile
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._functorch.aot_autograd import aot_function
from torch.func import grad, hessian, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from softmax_gradient_tampering import (
    tamper,
    tampered_binary_cross_entropy_with_logits,
    tampered_cross_entropy,
    tampered_linear_cross_entropy,
)
from tests.loss.cases import DTYPES, FEW_CASES, Case, assert_close

KERNELS = ("auto", "reference", "blocks", "cpu")
ALPHA = 0.25
LossFn = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()


class Called(nn.Module):
    """A function as a module, for torch.export."""

    def __init__(self, function: LossFn) -> None:
        super().__init__()
        self.function = function

    def forward(self, *arguments: Tensor) -> Tensor:
        return self.function(*arguments)


def export(function: LossFn, arguments: tuple[Tensor, ...], **options: Any) -> nn.Module:
    return torch.export.export(Called(function), arguments, **options).module()


def trace(**options: Any) -> Callable[[LossFn, tuple[Tensor, ...]], LossFn]:
    return lambda function, arguments: make_fx(function, **options)(*arguments)


def compiled(function: LossFn, backend: Any = "aot_eager") -> LossFn:
    return torch.compile(function, fullgraph=True, backend=backend)


# How a graph is made of a function and of arguments like those that it will be called with.
CAPTURES = {
    "export": export,
    "export, strict": lambda function, arguments: export(function, arguments, strict=True),
    "export, decomposed": lambda function, arguments: (
        torch.export.export(Called(function), arguments).run_decompositions().module()
    ),
    "export, compiled": lambda function, arguments: compiled(export(function, arguments)),
    "symbolic": lambda function, arguments: torch.fx.symbolic_trace(function),
    "make_fx": trace(),
    "make_fx, fake": trace(tracing_mode="fake"),
    "make_fx, symbolic": trace(tracing_mode="symbolic"),
    "make_fx, before autograd": trace(pre_dispatch=True),
    "forward and backward at once": lambda function, arguments: aot_function(
        function, fw_compiler=lambda graph, _: graph
    ),
    "compiled": lambda function, arguments: compiled(function),
}


def value_and_gradient(function: LossFn, arguments: tuple[Tensor, ...]) -> list[Tensor]:
    """The value, and the gradient of the first argument."""
    leaf = arguments[0].detach().clone().requires_grad_()
    loss = function(leaf, *arguments[1:])
    return [loss.detach(), *torch.autograd.grad(loss.sum(), leaf)]


def assert_graph_trains_as_eager(capture: str, function: LossFn, *arguments: Tensor) -> None:
    """Made of a first argument that requires a gradient, and of one that does not."""
    expected = value_and_gradient(function, arguments)
    for requires_grad in (False, True):
        like = arguments[0].clone().requires_grad_(requires_grad)
        graph = CAPTURES[capture](function, (like, *arguments[1:]))
        for of_graph, of_eager in zip(value_and_gradient(graph, arguments), expected, strict=True):
            # A few roundings: a graph may be made of other operations of torch.
            few = 8 * torch.finfo(of_eager.dtype).eps
            torch.testing.assert_close(of_graph, of_eager, rtol=few, atol=few)


# Every pair of capture, kernel and dtype; all three in the slow suite.
COVERING = [
    pytest.param(capture, kernel, dtype, marks=() if (i + j + k) % 4 == 0 else pytest.mark.slow)
    for (i, capture), (j, kernel), (k, dtype) in product(
        enumerate(CAPTURES), enumerate(KERNELS), enumerate(DTYPES)
    )
]


@pytest.mark.parametrize(("capture", "kernel", "dtype"), COVERING)
def test_the_cross_entropy_of_every_kernel_and_dtype(capture, kernel, dtype):
    logits, target, _ = Case().make(dtype)

    def loss_fn(z: Tensor, t: Tensor) -> Tensor:
        return tampered_cross_entropy(z, t, ALPHA, kernel=kernel)

    assert_graph_trains_as_eager(capture, loss_fn, logits, target)


@pytest.mark.parametrize("capture", ["export", "make_fx"])
@pytest.mark.parametrize("case", FEW_CASES[1:], ids=str)
def test_the_cross_entropy_with_options(capture, case):
    logits, target, options = case.make(torch.float32)
    weight = options.pop("weight")

    def loss_fn(z: Tensor, t: Tensor, w: Tensor | None = None) -> Tensor:
        return tampered_cross_entropy(z, t, ALPHA, weight=w, **options)

    if weight is None:
        assert_graph_trains_as_eager(capture, lambda z, t: loss_fn(z, t), logits, target)
    else:
        assert_graph_trains_as_eager(
            capture, lambda z, t, w: loss_fn(z, t, w), logits, target, weight
        )


LOSSES = {
    "linear": lambda hidden, target: tampered_linear_cross_entropy(
        hidden, hidden[:5] / 2, target, ALPHA
    ),
    "tamper": lambda z, target: tamper(F.multi_margin_loss, ALPHA)(z, target),
    "tamper at 0": lambda z, target: tamper(F.multi_margin_loss, 0)(z, target),
    "binary": lambda z, target: tampered_binary_cross_entropy_with_logits(
        z, (target.unsqueeze(1) == torch.arange(5)).to(z.dtype), ALPHA
    ),
    "images": lambda z, target: tampered_cross_entropy(
        torch.stack([z, -z], 2), torch.stack([target, target], 1), ALPHA
    ),
    "alpha as a tensor": lambda z, target: tampered_cross_entropy(
        z, target, (target.sum() * 0 + 1) / 4
    ),
}


@pytest.mark.parametrize("capture", CAPTURES)
@pytest.mark.parametrize("name", LOSSES)
def test_the_other_losses(name, capture):
    logits, target, _ = Case().make(torch.float32)
    assert_graph_trains_as_eager(capture, LOSSES[name], logits, target)


@pytest.mark.parametrize("name", ["cross-entropy", *LOSSES])
def test_a_draft_export_trains_as_eager(name, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # torch leaves a log there
    logits, target, _ = Case().make(torch.float32)
    loss_fn = LOSSES.get(name, lambda z, target: tampered_cross_entropy(z, target, ALPHA))
    graph = torch.export.draft_export(Called(loss_fn), (logits, target)).module()
    for of_graph, of_eager in zip(
        value_and_gradient(graph, (logits, target)),
        value_and_gradient(loss_fn, (logits, target)),
        strict=True,
    ):
        torch.testing.assert_close(of_graph, of_eager, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # of the way by TorchScript, which needs no further package
@pytest.mark.parametrize("name", ["cross-entropy", *LOSSES])
def test_onnx_is_refused_in_a_sentence(name, monkeypatch):
    logits, target, _ = Case().make(torch.float32)
    loss_fn = LOSSES.get(name, lambda z, target: tampered_cross_entropy(z, target, ALPHA))
    words = r"cannot be exported to ONNX, .* without its loss"
    with pytest.raises(NotImplementedError, match=words):
        torch.onnx.export(Called(loss_fn), (logits, target), io.BytesIO(), dynamo=False)
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    with pytest.raises(NotImplementedError, match=words):
        export(loss_fn, (logits, target))


def second_derivative(function: LossFn, logits: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    (first,) = torch.autograd.grad(function(leaf).sum(), leaf, create_graph=True)
    return torch.autograd.grad(first.square().sum(), leaf)[0]


@pytest.mark.parametrize("capture", ["export", "make_fx", "make_fx, before autograd"])
def test_a_graph_has_the_second_derivative_too(capture):
    logits, target, _ = Case().make()

    def loss_fn(z: Tensor) -> Tensor:
        return tampered_cross_entropy(z, target, ALPHA)

    graph = CAPTURES[capture](loss_fn, (logits,))
    assert_close(second_derivative(graph, logits), second_derivative(loss_fn, logits))


@pytest.mark.parametrize("capture", ["export", "make_fx"])
@pytest.mark.parametrize("name", ["cross-entropy", "linear"])
def test_torch_func_transforms_a_graph_as_the_function(name, capture):
    logits, target, _ = Case().make()
    of_logits = LOSSES.get(name, lambda z, target: tampered_cross_entropy(z, target, ALPHA))

    def loss_fn(z: Tensor) -> Tensor:
        return of_logits(z, target)

    graph = CAPTURES[capture](loss_fn, (logits,))
    two, tangent = torch.stack([logits, -logits]), torch.randn_like(logits)
    for transformed in (
        lambda function: grad(function)(logits),
        lambda function: hessian(function)(logits),
        lambda function: vmap(function)(two),
        lambda function: vmap(grad(function))(two),
        lambda function: jvp(function, (logits,), (tangent,))[1],
    ):
        assert_close(transformed(graph), transformed(loss_fn))


def test_a_traced_gradient_is_the_gradient():
    logits, target, _ = Case().make()

    def gradient(z: Tensor) -> Tensor:
        return grad(lambda z: tampered_cross_entropy(z, target, ALPHA))(z)

    assert_close(make_fx(gradient)(logits)(logits), gradient(logits))
