"""torch.compile with fullgraph: value and gradient as eager gives them."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.func import grad

from softmax_gradient_tampering import (
    TamperedCrossEntropyLoss,
    tamper,
    tampered_binary_cross_entropy_with_logits,
    tampered_cross_entropy,
    tampered_linear_cross_entropy,
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


OLD_TORCH = tuple(map(int, torch.__version__.split(".")[:2])) <= (2, 11)
LOSSES = {
    "cross-entropy": lambda z, t: tampered_cross_entropy(z, t, 0.25),
    "smoothed": lambda z, t: tampered_cross_entropy(z, t, 0.25, label_smoothing=0.1),
    "alpha 0": lambda z, t: tampered_cross_entropy(z, t, 0.0),
    "generic": tamper(F.cross_entropy, 0.25),
    "generic, alpha 0": tamper(F.cross_entropy, 0.0),
    "binary": lambda z, t: tampered_binary_cross_entropy_with_logits(z[:, 0], t.to(z) / 5, 0.25),
    "linear": lambda z, t: tampered_linear_cross_entropy(z, z[:5] / 3, t, 0.25),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_penalty_of_the_gradient_is_counted_where_the_graph_runs_as_it_is(name):
    logits, target, _ = Case().make()
    leaf = logits.requires_grad_()

    def gradient_with_penalty(loss_fn):
        loss = loss_fn(leaf, target)
        (first,) = torch.autograd.grad(loss, leaf, create_graph=True)
        return torch.autograd.grad(loss + first.square().sum(), leaf)[0]

    compiled = torch.compile(LOSSES[name], fullgraph=True, backend="eager")
    assert_close(gradient_with_penalty(compiled), gradient_with_penalty(LOSSES[name]))


@pytest.mark.parametrize("is_inside", [False, True], ids=["outside", "inside"])
@pytest.mark.parametrize("name", [name for name in LOSSES if "alpha 0" not in name])
def test_forward_mode_of_a_compiled_loss_is_that_of_eager(name, is_inside, request):
    if OLD_TORCH and name == "linear" and not is_inside:
        refused = pytest.mark.xfail(raises=NotImplementedError, reason="torch 2.11 refuses it")
        request.applymarker(refused)
    logits, target, _ = Case().make()

    def tangent(loss_fn):
        with forward_ad.dual_level():
            loss = loss_fn(forward_ad.make_dual(logits, logits), target)
            return forward_ad.unpack_dual(loss).tangent

    compiled = torch.compile(LOSSES[name], backend="eager")
    compiled(logits, target)  # a graph without tangents, which is not to be taken for them
    if is_inside:
        actual = torch.compile(lambda: tangent(LOSSES[name]), backend="eager")()
    else:
        actual = tangent(compiled)
    assert_close(actual, tangent(LOSSES[name]))


@pytest.mark.parametrize("name", ["cross-entropy", "generic"])
def test_compiled_autograd_of_an_eager_loss_has_its_gradient(name):
    logits, target, _ = Case().make()
    _, expected = value_and_gradient(LOSSES[name], logits, target)
    leaf = logits.clone().requires_grad_()
    loss = LOSSES[name](leaf, target)
    with torch._dynamo.config.patch(compiled_autograd=True):
        torch.compile(loss.backward, backend="eager")()
    assert_close(leaf.grad, expected)
