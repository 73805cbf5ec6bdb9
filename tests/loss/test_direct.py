"""The shortest way of a plain call against the long one: the same bits, and the same refusals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks
from torch.func import grad, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from softmax_gradient_tampering import tampered_cross_entropy
from softmax_gradient_tampering.loss import functional
from tests.loss.cases import assert_equal
from tests.loss.test_native import needs_library

ALPHA = 0.25
SHAPES = (
    *((1, 1), (7, 5), (64, 10), (33, 100), (3, 3000)),
    *((3, 4, 1), (2, 5, 3), (2, 3, 20, 30), (3, 70, 2, 1, 3)),
)
PLAIN = (None, -100, "mean", 0.0, "auto")


def make(*shape: int, requires_grad: bool = True) -> tuple[Tensor, Tensor]:
    """Logits and labels, one of them ignored if there are several."""
    generator = torch.Generator().manual_seed(0)
    shape = shape or (7, 5)
    logits = 3 * torch.randn(shape, generator=generator)
    target = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    target[1:2] = -100
    return logits.requires_grad_(requires_grad), target


def both_ways(call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a call returns or raises as it is, and where no call is taken directly."""
    results = []
    for is_long in (False, True):
        with monkeypatch.context() as patch:
            if is_long:
                patch.setattr(functional, "is_direct", lambda *_: False)
            try:
                results.append(call())
            except Exception as error:
                results.append((type(error), str(error)))
    return results


def assert_same(results: list[Any]) -> None:
    actual, expected = results
    if isinstance(expected, Tensor):
        assert_equal(actual.detach(), expected.detach())
    elif isinstance(expected, tuple) and all(isinstance(each, Tensor) for each in expected):
        assert len(actual) == len(expected)
        for pair in zip(actual, expected, strict=True):
            assert_same(list(pair))
    else:
        assert actual == expected


@pytest.mark.parametrize("kernel", [pytest.param("auto", marks=needs_library), "blocks"])
@pytest.mark.parametrize("alpha", [1e-30, 0.25, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_gradient_are_those_of_the_long_way(shape, alpha, kernel, monkeypatch):
    logits, target = make(*shape)
    assert functional.is_direct(logits, target, alpha, (*PLAIN[:4], kernel))

    def call() -> tuple[Tensor, ...]:
        loss = tampered_cross_entropy(logits, target, alpha, kernel=kernel)
        (once,) = torch.autograd.grad(3 * loss, logits, retain_graph=True)
        (again,) = torch.autograd.grad(loss, logits)
        return loss, once, again

    assert_same(both_ways(call, monkeypatch))


def second_derivative() -> tuple[Tensor, ...]:
    logits, target = make()
    loss = tampered_cross_entropy(logits, target, ALPHA)
    (first,) = torch.autograd.grad(loss, logits, create_graph=True)
    return first, torch.autograd.grad(first.square().sum(), logits)[0]


def batch_of_gradients() -> Tensor:
    logits, target = make()
    loss = tampered_cross_entropy(logits, target, ALPHA)
    incoming = torch.tensor([1.0, 2.0])
    return torch.autograd.grad(loss, logits, incoming, is_grads_batched=True)[0]


def vmap_of_backward() -> Tensor:
    logits, target = make()
    loss = tampered_cross_entropy(logits, target, ALPHA)
    return vmap(lambda g: torch.autograd.grad(loss, logits, g)[0])(torch.tensor([1.0, 2.0]))


def traced_backward() -> Tensor:
    logits, target = make()
    loss = tampered_cross_entropy(logits, target, ALPHA)
    backward = lambda g: torch.autograd.grad(loss, logits, g, retain_graph=True)[0]  # noqa: E731
    return make_fx(backward)(torch.tensor(1.0))(torch.tensor(2.0))


def all_zero_gradient() -> Tensor:
    logits, target = make()
    loss = tampered_cross_entropy(logits, target, ALPHA)
    return torch.autograd.grad(loss, logits, torch._efficientzerotensor(()))[0]


def other_tensors_given_back() -> Tensor:
    logits, target = make()
    turned = lambda saved: saved.t().contiguous().t() if saved.dim() == 2 else saved  # noqa: E731
    with saved_tensors_hooks(lambda saved: saved.detach().numpy(), torch.from_numpy):
        of_copies = tampered_cross_entropy(logits, target, ALPHA)
    with saved_tensors_hooks(turned, lambda saved: saved):
        of_turned = tampered_cross_entropy(logits, target, ALPHA)
    return torch.autograd.grad(of_copies + of_turned, logits)[0]


def written_to_in_between() -> None:
    logits, target = make()
    logits = logits * 1
    loss = tampered_cross_entropy(logits, target, ALPHA)
    logits.zero_()
    loss.backward()


def labels_written_to_in_between() -> None:
    logits, target = make()
    loss = tampered_cross_entropy(logits, target, ALPHA)
    target.zero_()
    loss.backward()


def backward_twice() -> None:
    logits, target = make()
    loss = tampered_cross_entropy(logits, target, ALPHA)
    loss.backward()
    loss.backward()


def without_gradient() -> tuple[Tensor, ...]:
    logits, target = make(requires_grad=False)
    with torch.no_grad():
        first = tampered_cross_entropy(logits, target, ALPHA)
    with torch.inference_mode():
        second = tampered_cross_entropy(logits * 1, target, ALPHA)
    third = tampered_cross_entropy(logits, target, ALPHA)
    assert not any(loss.requires_grad for loss in (first, second, third))
    return first, second.clone(), third


def transformed() -> tuple[Tensor, ...]:
    logits, target = make(requires_grad=False)
    loss_fn = lambda z: tampered_cross_entropy(z, target, ALPHA)  # noqa: E731
    batch = torch.stack([logits, -logits])
    return grad(loss_fn)(logits), vmap(loss_fn)(batch), *jvp(loss_fn, (logits,), (logits,))


def forward_mode() -> tuple[Tensor, ...]:
    logits, target = make(requires_grad=False)
    with forward_ad.dual_level():
        loss = tampered_cross_entropy(forward_ad.make_dual(logits, -logits), target, ALPHA)
        return tuple(forward_ad.unpack_dual(loss))


def traced() -> Tensor:
    logits, target = make()
    graph = make_fx(lambda z: tampered_cross_entropy(z, target, ALPHA))(logits)
    return graph(-logits)


def seen_by_a_mode_of_functions() -> list[str]:
    seen = []

    class Mode(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **kwargs or {})

    logits, target = make()
    with Mode():
        tampered_cross_entropy(logits, target, ALPHA)
    return sorted(seen)


def seen_by_a_mode_of_dispatch() -> list[str]:
    seen = []

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **kwargs or {})

    logits, target = make()
    with Mode():
        tampered_cross_entropy(logits, target, ALPHA).backward()
    return seen


def under_autocast() -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return tampered_cross_entropy(*make(), ALPHA)


def with_other_defaults() -> Tensor:
    logits, target = make()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            loss = tampered_cross_entropy(logits, target, ALPHA)
            return torch.autograd.grad(loss, logits)[0] + loss.detach()
    finally:
        torch.set_default_dtype(torch.float32)


class Subclass(Tensor):
    pass


def of_subclasses() -> str:
    logits, target = make()
    return type(tampered_cross_entropy(logits.as_subclass(Subclass), target, ALPHA)).__name__


CALLS = (
    *(second_derivative, batch_of_gradients, vmap_of_backward, traced_backward, all_zero_gradient),
    *(other_tensors_given_back, written_to_in_between, labels_written_to_in_between),
    *(backward_twice, without_gradient, transformed, forward_mode, traced),
    *(seen_by_a_mode_of_functions, seen_by_a_mode_of_dispatch, under_autocast),
    *(with_other_defaults, of_subclasses),
)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_whoever_looks_on_sees_what_the_long_way_shows(call, monkeypatch):
    assert_same(both_ways(call, monkeypatch))


LOGITS, TARGET = make(requires_grad=False)
IMAGES, LABELS = make(2, 5, 3, 4, requires_grad=False)
TENSORS = {
    "float64": (LOGITS.double(), TARGET),
    "bfloat16": (LOGITS.bfloat16(), TARGET),
    "short labels": (LOGITS, TARGET.to(torch.int16)),
    "probabilities": (LOGITS, LOGITS.softmax(1)),
    "one row": (LOGITS[0], TARGET[0]),
    "no rows": (LOGITS[:0], TARGET[:0]),
    "turned": (LOGITS.t().contiguous().t(), TARGET),
    "expanded": (LOGITS[:1].expand(7, 5), TARGET),
    "every second label": (LOGITS, TARGET.repeat_interleave(2)[::2]),
    "negated": (torch.complex(LOGITS, -LOGITS).conj().imag, TARGET),
    "all zero": (torch._efficientzerotensor((7, 5)), TARGET),
    "all zero labels": (LOGITS, torch._efficientzerotensor(7, dtype=torch.int64)),
    "sparse": (LOGITS.to_sparse(), TARGET),
    "no data": (LOGITS.to("meta"), TARGET.to("meta")),
    "labels of another shape": (LOGITS.reshape(7, 5, 1), TARGET),
    "channels last": (IMAGES.contiguous(memory_format=torch.channels_last), LABELS),
    "two devices": (LOGITS, TARGET.to("meta")),
    "a row too many": (LOGITS, TARGET[1:]),
    "no class": (LOGITS, TARGET + 3),
    "numbers": (LOGITS.numpy(), TARGET),
}
ARGUMENTS = (
    *({"alpha": alpha} for alpha in (-1.0, float("nan"), 0.0, 0, 1, "0.25", True, None)),
    *({"alpha": alpha} for alpha in (np.float32(0.5), np.float64(0.5), torch.tensor(0.5))),
    *({"ignore_index": index} for index in (-100.0, 2, True, None)),
    *({"label_smoothing": value} for value in (0, False, 0.1, 2.0, None, torch.tensor(0.0))),
    *({"reduction": name} for name in ("sum", "none", "average", None)),
    *({"kernel": name} for name in ("cpu", "blocks", "reference", "triton", "gpu")),
    *({"weight": weight} for weight in (torch.ones(5), torch.ones(4))),
)


@pytest.mark.parametrize("name", TENSORS)
def test_every_tensor_gives_what_the_long_way_gives(name, monkeypatch):
    assert_same(both_ways(lambda: tampered_cross_entropy(*TENSORS[name], ALPHA), monkeypatch))


@pytest.mark.parametrize("given", ARGUMENTS, ids=str)
def test_every_argument_gives_what_the_long_way_gives(given, monkeypatch):
    arguments = {"alpha": ALPHA} | given
    assert_same(both_ways(lambda: tampered_cross_entropy(LOGITS, TARGET, **arguments), monkeypatch))
