"""Torch's own test inputs for its losses, as far as the installed torch has them, for ours.

Torch describes each function by sample inputs (`op_db`) and each module by constructor and call
(`module_db`). Ours has to take every one of them: at alpha 1 it is torch's loss, and at any alpha
its gradient is that of torch's loss at alpha z, over alpha.
"""

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import jvp, vmap
from torch.utils._pytree import tree_map_only

from softmax_gradient_tampering import (
    TamperedCrossEntropyLoss,
    tampered_binary_cross_entropy_with_logits,
    tampered_cross_entropy,
    tampered_linear_cross_entropy,
)
from tests.loss.cases import DTYPES

ALPHAS = (1.0, 0.25)
Loss = Callable[..., Tensor]


class Suite(NamedTuple):
    """A loss of torch's: its samples, itself, ours, and itself at alpha z over alpha."""

    name: str
    torchs: str
    ours: Callable[[float], Loss]
    surrogate: Callable[[float], Loss]


def linear(alpha: float) -> Loss:
    names = {"linear_bias": "bias", "weight": "class_weight"}

    def loss_fn(input: Tensor, head: Tensor, target: Tensor, **options: Any) -> Tensor:
        renamed = {names.get(name, name): value for name, value in options.items()}
        if renamed.get("ignore_index", 0) is None:
            del renamed["ignore_index"]
        return tampered_linear_cross_entropy(input, head, target, alpha, **renamed)

    return loss_fn


def linear_surrogate(alpha: float) -> Loss:
    def loss_fn(input: Tensor, *args: Any, linear_bias: Tensor | None = None, **kw: Any) -> Tensor:
        bias = None if linear_bias is None else alpha * linear_bias
        return F.linear_cross_entropy(alpha * input, *args, linear_bias=bias, **kw) / alpha

    return loss_fn


def of_logits(ours: Loss, torchs: Loss) -> tuple[Callable[[float], Loss], Callable[[float], Loss]]:
    return (
        lambda alpha: lambda z, target, **options: ours(z, target, alpha, **options),
        lambda alpha: lambda z, target, **options: torchs(alpha * z, target, **options) / alpha,
    )


SUITES = (
    Suite(
        "nn.functional.cross_entropy",
        "cross_entropy",
        *of_logits(tampered_cross_entropy, F.cross_entropy),
    ),
    Suite(
        "nn.functional.binary_cross_entropy_with_logits",
        "binary_cross_entropy_with_logits",
        *of_logits(tampered_binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits),
    ),
    Suite("nn.functional.linear_cross_entropy", "linear_cross_entropy", linear, linear_surrogate),
)


@cache
def torchs_lists() -> tuple[list[Any], list[Any]]:
    """op_db and module_db, imported without their ban on setting flags of torch.backends."""
    pytest.importorskip("expecttest", reason="torch's test inputs need it: pip install expecttest")
    with torch.backends.__allow_nonbracketed_mutation():
        from torch.testing._internal.common_methods_invocations import op_db
        from torch.testing._internal.common_modules import module_db
    return op_db, module_db


def entry_of(name: str, entries: list[Any]) -> Any:
    found = [e for e in entries if e.name == name and not getattr(e, "variant_test_name", "")]
    if not found:
        pytest.skip(f"torch {torch.__version__} describes no {name}")
    return found[0]


def samples(suite: Suite, dtype: torch.dtype, requires_grad: bool = False) -> Iterator[Any]:
    torch.manual_seed(0)
    operator = entry_of(suite.name, torchs_lists()[0])
    if dtype not in operator.dtypes:
        pytest.skip(f"torch has no samples of {dtype}")
    yield from operator.sample_inputs("cpu", dtype, requires_grad=requires_grad)


def call(loss_fn: Loss, sample: Any) -> Tensor:
    return loss_fn(sample.input, *sample.args, **sample.kwargs)


def leaves_of(sample: Any) -> list[Tensor]:
    tensors = [sample.input, *sample.args, *sample.kwargs.values()]
    return [t for t in tensors if torch.is_tensor(t) and t.requires_grad]


def value_and_gradients(loss_fn: Loss, sample: Any) -> list[Tensor]:
    loss = call(loss_fn, sample)
    grads = torch.autograd.grad(loss.sum(), leaves_of(sample), allow_unused=True)
    return [loss.detach(), *grads]


def assert_close(actual: Tensor, expected: Tensor, what: object) -> None:
    """To a few roundings of the dtype, in which torch adds up in another order."""
    few = 16 * torch.finfo(expected.dtype).eps
    torch.testing.assert_close(
        actual, expected, rtol=few, atol=few, equal_nan=True, msg=lambda m: f"{what}: {m}"
    )


@pytest.fixture(params=SUITES, ids=lambda suite: suite.torchs)
def suite(request) -> Suite:
    return request.param


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_and_gradients(suite, dtype):
    torchs = getattr(F, suite.torchs, None)
    for sample in samples(suite, dtype, requires_grad=True):
        for alpha in ALPHAS:
            loss, *grads = value_and_gradients(suite.ours(alpha), sample)
            assert_close(loss, call(torchs, sample).detach(), sample)
            _, *expected = value_and_gradients(suite.surrogate(alpha), sample)
            for ours, at_alpha_z in zip(grads, expected, strict=True):
                assert_close(ours, at_alpha_z, sample)


def test_tensors_that_are_not_contiguous(suite):
    for sample in samples(suite, torch.float64, requires_grad=True):
        expected = value_and_gradients(suite.ours(0.25), sample)
        actual = value_and_gradients(suite.ours(0.25), sample.noncontiguous())
        for ours, of_contiguous in zip(actual, expected, strict=True):
            assert_close(ours, of_contiguous, sample)


def test_vmap_over_the_input(suite):
    for sample in samples(suite, torch.float64):
        inputs = torch.stack([sample.input, -2 * sample.input])

        def of_input(loss_fn: Loss, input: Tensor, sample: Any = sample) -> Tensor:
            return loss_fn(input, *sample.args, **sample.kwargs)

        try:
            torchs = vmap(lambda z: of_input(getattr(F, suite.torchs), z))(inputs)
        except RuntimeError:  # torch has no vmap of some
            continue
        ours = vmap(lambda z: of_input(suite.ours(0.25), z))(inputs)
        assert_close(ours, torchs, sample)


def test_jvp_in_the_input(suite):
    for sample in samples(suite, torch.float64):
        tangent = torch.randn_like(sample.input)

        def of_input(loss_fn: Loss, input: Tensor, sample: Any = sample) -> Tensor:
            return loss_fn(input, *sample.args, **sample.kwargs)

        _, expected = jvp(lambda z: of_input(suite.surrogate(0.25), z), (sample.input,), (tangent,))
        value, ours = jvp(lambda z: of_input(suite.ours(0.25), z), (sample.input,), (tangent,))
        assert_close(ours, expected, sample)
        assert_close(value, call(getattr(F, suite.torchs), sample), sample)


def metadata(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype, tensor.stride()


@pytest.mark.parametrize("kind", ["fake", "meta"])
def test_shapes_and_dtypes_without_data(suite, kind):
    for sample in samples(suite, torch.float32, requires_grad=True):
        mode = FakeTensorMode() if kind == "fake" else contextlib.nullcontext()
        convert = mode.from_tensor if kind == "fake" else lambda tensor: tensor.to("meta")
        with mode:
            empty = sample.transform(lambda a, f=convert: tree_map_only(Tensor, f, a))
            for tensor in leaves_of(sample):
                assert tensor.device.type == "cpu"
            leaf = empty.input.detach().requires_grad_()
            loss = suite.ours(0.25)(leaf, *empty.args, **empty.kwargs)
            (grad,) = torch.autograd.grad(loss.sum(), leaf)
        real, real_grad, *_ = value_and_gradients(suite.ours(0.25), sample)
        assert loss.device.type == ("cpu" if kind == "fake" else "meta")
        assert metadata(loss) == metadata(real), sample
        assert metadata(grad)[:2] == metadata(real_grad)[:2], sample


def test_the_module_takes_the_inputs_of_torchs():
    _, module_db = torchs_lists()
    entry = entry_of("nn.CrossEntropyLoss", module_db)
    torch.manual_seed(0)
    for module_input in entry.module_inputs_func(entry, "cpu", torch.float64, True, True):
        constructor, forward = module_input.constructor_input, module_input.forward_input
        torchs = nn.CrossEntropyLoss(*constructor.args, **constructor.kwargs)
        logits, target = forward.args
        for alpha in ALPHAS:
            ours = TamperedCrossEntropyLoss(alpha, *constructor.args, **constructor.kwargs)
            loss, at_alpha_z = ours(logits, target), torchs(alpha * logits, target) / alpha
            assert_close(loss, torchs(logits, target), module_input.desc)
            grads = (torch.autograd.grad(value.sum(), logits)[0] for value in (loss, at_alpha_z))
            assert_close(*grads, module_input.desc)


def test_the_module_refuses_what_torchs_refuses_in_its_words():
    _, module_db = torchs_lists()
    entry = entry_of("nn.CrossEntropyLoss", module_db)
    if entry.module_error_inputs_func is None:
        pytest.skip("this torch describes no wrong input of nn.CrossEntropyLoss")  # 2.9 to 2.11
    errors = entry.module_error_inputs_func(entry, "cpu", torch.float64, True, True)
    for error in errors:
        wrong = error.module_error_input
        constructor, forward = wrong.constructor_input, wrong.forward_input
        loss_fn = TamperedCrossEntropyLoss(0.25, *constructor.args, **constructor.kwargs)
        with pytest.raises(error.error_type, match=error.error_regex):
            loss_fn(*forward.args, **forward.kwargs)


def test_the_functions_refuse_what_torchs_refuses(suite):
    operator = entry_of(suite.name, torchs_lists()[0])
    if operator.error_inputs_func is None:
        pytest.skip(f"torch describes no wrong input of {suite.torchs}")
    arguments = "|".join(inspect.signature(tampered_linear_cross_entropy).parameters)
    for error in operator.error_inputs("cpu"):
        with pytest.raises((error.error_type, ValueError)) as raised:
            call(suite.ours(0.25), error.sample_input)
        assert re.search(rf"\b({arguments})\b", str(raised.value)), raised.value
