"""torch.compile with fullgraph: value and gradient as eager gives them."""

import pytest
import torch
from torch.func import grad

from softmax_gradient_tampering import (
    TamperedCrossEntropyLoss,
    tamper,
    tampered_binary_cross_entropy_with_logits,
    tampered_cross_entropy,
)
from softmax_gradient_tampering.loss.kernels import compiled as of_compiler
from tests.loss.cases import FEW_CASES, Case, assert_close, value_and_gradient


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()


def assert_compiled_equals_eager(loss_fn, logits, *args, backend="aot_eager", **options):
    compiled = torch.compile(loss_fn, fullgraph=True, backend=backend)
    actual = value_and_gradient(compiled, logits, *args, **options)
    expected = value_and_gradient(loss_fn, logits, *args, **options)
    for ours, eager in zip(actual, expected, strict=True):
        assert_close(ours, eager)


@pytest.fixture(params=["operations", "operator"])
def _whole_or_opaque(request, monkeypatch):
    """Few logits are left to the compiler, in torch's operations; many are the operator's."""
    if request.param == "operator":
        monkeypatch.setattr(of_compiler, "FEW_LOGITS", 0)


@pytest.mark.usefixtures("_whole_or_opaque")
@pytest.mark.parametrize("alpha", [0.25, torch.tensor(0.25)], ids=["number", "tensor"])
@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_compiled_function_equals_eager(case, alpha):
    logits, target, options = case.make()
    assert_compiled_equals_eager(tampered_cross_entropy, logits, target, alpha, **options)


@pytest.mark.usefixtures("_whole_or_opaque")
def test_compiled_by_inductor_equals_eager():
    logits, target, options = Case(weighted=True).make()
    assert_compiled_equals_eager(
        tampered_cross_entropy, logits, target, 0.25, backend="inductor", **options
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(7, 5), (2, 5, 3, 2)], ids=str)
def test_plain_logits_compiled_by_inductor_are_right(shape, dtype):
    logits, target, _ = Case(shape=shape).make(dtype)
    target.view(-1)[1] = -100
    compiled = torch.compile(tampered_cross_entropy, fullgraph=True)
    actual = value_and_gradient(compiled, logits, target, 0.25)
    truths = value_and_gradient(tampered_cross_entropy, logits.double(), target, 0.25)
    for ours, truth in zip(actual, truths, strict=True):
        assert ours.dtype == dtype
        rounding = torch.finfo(dtype).eps * truth.abs().max()
        assert (ours.double() - truth).abs().max() <= 4 * rounding


@pytest.mark.usefixtures("_whole_or_opaque")
@pytest.mark.parametrize("large", [torch.inf, torch.nan], ids=str)
def test_an_alpha_set_to_zero_gives_the_eager_gradient_whatever_the_logits(large):
    logits, target, options = Case().make()
    logits[0, 1], logits[0, 2], logits[1, 3] = -torch.inf, large, large
    loss_fn = TamperedCrossEntropyLoss(0.5, **options)
    compiled = torch.compile(loss_fn, fullgraph=True, backend="aot_eager")
    for alpha in (0.25, 0.0):
        loss_fn.alpha = alpha
        _, actual = value_and_gradient(compiled, logits, target)
        _, expected = value_and_gradient(loss_fn, logits, target)
        torch.testing.assert_close(actual, expected, equal_nan=True)
    assert not actual.isnan().any()


def test_compiled_model_and_loss_equal_eager():
    logits, target, options = Case(weighted=True, smoothing=0.1).make()
    loss_fn = TamperedCrossEntropyLoss(0.25, **options)
    assert_compiled_equals_eager(lambda z, t: loss_fn(z.sin(), t), logits, target)


def test_a_batch_of_another_size_recompiles_at_most_once():
    compiled = torch.compile(tampered_cross_entropy, fullgraph=True, backend="aot_eager")
    for batch_size in (4, 5):  # the second makes the batch size a symbol
        logits, target, _ = Case(shape=(batch_size, 5)).make()
        value_and_gradient(compiled, logits, target, 0.25)
    with torch.compiler.set_stance("fail_on_recompile"):
        logits, target, _ = Case(shape=(9, 5)).make()
        actual = value_and_gradient(compiled, logits, target, 0.25)
    expected = value_and_gradient(tampered_cross_entropy, logits, target, 0.25)
    for ours, eager in zip(actual, expected, strict=True):
        assert_close(ours, eager)


def test_compiled_soft_target_with_gradient_equals_eager():
    logits, target, _ = Case(soft=True).make()
    assert_compiled_equals_eager(tampered_cross_entropy, logits, target.requires_grad_(), 0.25)


@pytest.mark.parametrize(
    "loss_fn",
    [
        tamper(torch.nn.functional.multi_margin_loss, 0.25),
        lambda z, t: tampered_binary_cross_entropy_with_logits(z.sum(1), t / 5, 0.25),
    ],
    ids=["multi_margin", "binary"],
)
def test_compiled_generic_losses_equal_eager(loss_fn):
    logits, target, _ = Case().make()
    assert_compiled_equals_eager(loss_fn, logits, target)


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_compiled_func_grad_equals_eager(case):
    logits, target, options = case.make()

    def gradient(z):
        return grad(lambda z: tampered_cross_entropy(z, target, 0.25, **options).sum())(z)

    compiled = torch.compile(gradient, fullgraph=True, backend="aot_eager")
    assert_close(compiled(logits), gradient(logits))
