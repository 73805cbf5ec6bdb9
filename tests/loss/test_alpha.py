"""alpha: which numbers and tensors it may be, and that a tensor costs no recompilation."""

import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import grad, jacfwd, jacrev, jvp, vmap

from softmax_gradient_tampering import (
    TamperedCrossEntropyLoss,
    TamperedTrainerLoss,
    fold_alpha,
    power_transform,
    stationary_threshold,
    tamper,
    tampered_binary_cross_entropy_with_logits,
    tampered_cross_entropy,
    tampered_linear_cross_entropy,
)
from tests.loss.cases import (
    ALPHAS,
    FEW_CASES,
    Case,
    assert_close,
    assert_equal,
    surrogate,
    value_and_gradient,
)

LOGITS, LABELS, P = torch.zeros(2, 3), torch.tensor([0, 1]), torch.full((2, 2), 0.5)
CALLS = {
    "tampered_cross_entropy": lambda alpha: tampered_cross_entropy(LOGITS, LABELS, alpha),
    "TamperedCrossEntropyLoss": TamperedCrossEntropyLoss,
    "tamper": lambda alpha: tamper(torch.nn.functional.cross_entropy, alpha),
    "binary": lambda alpha: tampered_binary_cross_entropy_with_logits(P, P, alpha),
    "fold_alpha": lambda alpha: fold_alpha(torch.nn.Linear(2, 2), alpha),
    "power_transform": lambda alpha: power_transform(P, alpha),
    "stationary_threshold": lambda alpha: stationary_threshold(P, alpha),
}


@pytest.fixture(params=CALLS)
def call(request):
    return CALLS[request.param]


@pytest.mark.parametrize("alpha", [-0.25, -1, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", [lambda alpha: alpha, torch.tensor], ids=["number", "tensor"])
def test_alpha_must_be_finite_and_at_least_zero(call, kind, alpha):
    with pytest.raises(ValueError, match=rf"finite and at least 0, got {alpha}"):
        call(kind(alpha))


@pytest.mark.parametrize(
    "alpha",
    [
        *(True, "0.25", None, [0.25], 1j, torch.tensor(True), torch.tensor(1j)),
        *(np.True_, np.array(True), np.array([0.25]), np.complex64(1)),
    ],
    ids=str,
)
def test_alpha_must_be_a_number(call, alpha):
    with pytest.raises(TypeError, match=r"must be a number or a 0-d tensor, not (bool|[a-zN])"):
        call(alpha)


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 1)], ids=str)
def test_a_tensor_alpha_must_be_0d(call, shape):
    with pytest.raises(ValueError, match=r"not a tensor of shape \(\d"):
        call(torch.full(shape, 0.25))


def test_an_alpha_too_large_for_a_float_is_refused(call):
    with pytest.raises(ValueError, match=r"finite and at least 0, got 10000"):
        call(10**400)


REAL_NUMBERS = (
    *(1, 0, 2, Fraction(1, 4), Decimal("0.25")),
    *(np.float64(0.25), np.float32(0.25), np.float16(0.25), np.int64(1), np.array(0.25)),
    *(torch.tensor(1), torch.tensor(2), torch.tensor(0.25, dtype=torch.bfloat16)),
)


@pytest.mark.parametrize("alpha", REAL_NUMBERS, ids=repr)
def test_any_real_number_equals_the_float(alpha):
    logits, target, _ = Case().make()
    actual = value_and_gradient(tampered_cross_entropy, logits, target, alpha)
    expected = value_and_gradient(tampered_cross_entropy, logits, target, float(alpha))
    for of_integer, of_float in zip(actual, expected, strict=True):
        assert_equal(of_integer, of_float)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_a_tensor_alpha_equals_the_number(case, dtype):
    logits, target, options = case.make()
    for alpha in (0.0, *ALPHAS):
        alpha = torch.tensor(alpha, dtype=dtype)
        actual = value_and_gradient(tampered_cross_entropy, logits, target, alpha, **options)
        expected = value_and_gradient(
            tampered_cross_entropy, logits, target, alpha.item(), **options
        )
        for of_tensor, of_number in zip(actual, expected, strict=True):
            assert_equal(of_tensor, of_number)


def test_a_tensor_alpha_is_not_written_to():
    logits, target, _ = Case().make()
    alpha = torch.tensor(0.25)
    value_and_gradient(tampered_cross_entropy, logits, target, alpha)
    assert alpha.item() == 0.25


def test_alpha_is_that_of_the_forward_pass():
    logits, target, _ = Case().make()
    alpha, leaf = torch.tensor(0.25), logits.clone().requires_grad_()
    loss = tampered_cross_entropy(leaf, target, alpha)
    alpha.fill_(0.5)  # a schedule moves on
    loss.backward()
    assert_equal(leaf.grad, value_and_gradient(tampered_cross_entropy, logits, target, 0.25)[1])


def of_outputs(trainer_loss):
    return lambda z, t: trainer_loss((z,), t)


KEEPS = {
    "module": TamperedCrossEntropyLoss,
    "tamper": lambda alpha: tamper(F.cross_entropy, alpha),
    "trainer": lambda alpha: of_outputs(TamperedTrainerLoss(alpha)),
}


@pytest.mark.parametrize("name", KEEPS)
def test_what_a_schedule_writes_to_a_tensor_counts_from_the_next_call_on(name):
    logits, target, _ = Case().make()
    alpha = torch.tensor(0.25)
    loss_fn = KEEPS[name](alpha)
    for value in (0.25, 1.0, 0.0):
        alpha.fill_(value)
        actual = value_and_gradient(loss_fn, logits, target)
        expected = value_and_gradient(tampered_cross_entropy, logits, target, value)
        for ours, plain in zip(actual, expected, strict=True):
            assert_close(ours, plain)
    alpha.fill_(-1.0)
    with pytest.raises(ValueError, match=r"at least 0, got -1\.0"):
        loss_fn(logits, target)


def test_python_warns_once_of_an_alpha_above_1(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for alpha in (25, 25.0, torch.tensor(25), 1.0, 0.25):
            call(alpha)
    said = [str(warning.message) for warning in caught]
    assert len(said) == 1
    assert "alpha = 25 is above 1" in said[0]
    assert "published values are 0.05 to 0.92" in said[0]


def test_what_a_module_is_given_for_alpha_is_no_parameter_of_it():
    logits, target, _ = Case().make()
    _, expected = value_and_gradient(tampered_cross_entropy, logits, target, 0.25)
    number = torch.tensor(0.25)
    for alpha in (nn.Parameter(number, requires_grad=False), nn.Buffer(number)):
        for loss_fn in (TamperedCrossEntropyLoss(alpha), TamperedCrossEntropyLoss(1.0)):
            loss_fn.alpha = alpha
            assert_equal(value_and_gradient(loss_fn, logits, target)[1], expected)
            assert not loss_fn.state_dict()
            assert not [*loss_fn.parameters()]


LOSSES = {
    "tampered_cross_entropy": tampered_cross_entropy,
    "tampered_linear_cross_entropy": lambda z, target, alpha: tampered_linear_cross_entropy(
        z, z[:5] / 3, target, alpha
    ),
    "tamper": lambda z, target, alpha: tamper(F.cross_entropy, alpha)(z, target),
    "binary": lambda z, target, alpha: tampered_binary_cross_entropy_with_logits(
        z, target.unsqueeze(1).expand_as(z) / 5, alpha
    ),
}


def of_alpha(name):
    """A loss as a function of alpha alone, its logits, and its gradient in these."""
    logits, target, _ = Case().make()

    def loss(alpha, z=logits):
        return LOSSES[name](z, target, alpha)

    return loss, lambda alpha: grad(lambda z: loss(alpha, z))(logits)


DERIVATIVES = {
    "autograd": lambda loss, _, alpha: loss(alpha.requires_grad_()),
    "of what is learnt": lambda loss, _, alpha: loss(alpha.requires_grad_().sigmoid()),
    "grad": lambda loss, _, alpha: grad(loss)(alpha),
    "jvp": lambda loss, _, alpha: jvp(loss, (alpha,), (alpha,)),
    "vmap": lambda loss, _, alpha: vmap(grad(loss))(alpha.expand(2)),
    "autograd of vmap": lambda loss, _, alpha: vmap(loss)(alpha.requires_grad_().expand(2)),
    "the gradient's": lambda _, gradient, alpha: jacrev(gradient)(alpha),
    "the gradient's, forward": lambda _, gradient, alpha: jacfwd(gradient)(alpha),
    "the gradient's, by autograd": lambda _, gradient, alpha: gradient(alpha.requires_grad_()),
}


@pytest.mark.parametrize("derivative", DERIVATIVES)
@pytest.mark.parametrize("name", LOSSES)
def test_an_alpha_that_is_differentiated_is_refused_with_the_way_to_do_it(name, derivative):
    with pytest.raises(ValueError, match=r"pass alpha\.detach\(\).*cross_entropy\(alpha \*"):
        DERIVATIVES[derivative](*of_alpha(name), torch.tensor(0.25, dtype=torch.float64))


@pytest.mark.parametrize("keep", [*KEEPS.values(), power_transform], ids=[*KEEPS, "transform"])
def test_whatever_keeps_alpha_refuses_one_to_be_learnt(keep):
    arguments = (P,) if keep is power_transform else ()
    with pytest.raises(ValueError, match="alpha must not require a gradient"):
        keep(*arguments, nn.Parameter(torch.tensor(0.25)))
    loss_fn = TamperedCrossEntropyLoss(1.0)
    with pytest.raises(ValueError, match="alpha must not require a gradient"):
        loss_fn.alpha = nn.Parameter(torch.tensor(0.25))


def test_a_fitted_temperature_is_folded():
    assert fold_alpha(nn.Linear(2, 2), nn.Parameter(torch.tensor(0.25))).folded_alpha == 0.25


def test_a_compiled_gradient_has_its_derivative_in_alpha():
    torch.compiler.reset()
    logits, target, _ = Case().make()
    alpha = torch.tensor(0.25, dtype=torch.float64)

    def gradient(alpha):
        return grad(lambda z, alpha: tampered_cross_entropy(z, target, alpha))(logits, alpha)

    expected = jacrev(lambda alpha: grad(lambda z: surrogate(z, target, alpha))(logits))(alpha)
    for derivative in (jacrev, jacfwd):
        compiled = torch.compile(derivative(gradient), backend="eager", fullgraph=True)
        assert_close(compiled(alpha), expected)


OLD_TORCH = tuple(map(int, torch.__version__.split(".")[:2])) <= (2, 11)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.xfail(
                OLD_TORCH and name == "binary",
                reason="torch 2.11 rounds a number that changes to float32: 3e-8 beside it",
            ),
        )
        for name in LOSSES
    ],
)
def test_a_number_that_changes_is_an_input_of_the_compiled_graph(name):
    torch.compiler.reset()
    logits, target, _ = Case().make()
    compiled = torch.compile(LOSSES[name], fullgraph=True, backend="aot_eager")
    for step in range(1, 13):  # torch gives up at 8 compilations
        alpha = step / 16
        actual = value_and_gradient(compiled, logits, target, alpha)
        expected = value_and_gradient(LOSSES[name], logits, target, alpha)
        for ours, eager in zip(actual, expected, strict=True):
            assert_close(ours, eager)


@pytest.mark.parametrize(
    "alpha",
    [
        np.float32(0.25),
        np.array(0.25),
        pytest.param(
            Fraction(1, 4),
            marks=pytest.mark.xfail(OLD_TORCH, reason="torch 2.11 traces no float(Fraction)"),
        ),
        25.0,
    ],
    ids=repr,
)
def test_any_real_number_compiles(alpha):
    torch.compiler.reset()
    logits, target, _ = Case().make()
    compiled = torch.compile(tampered_cross_entropy, fullgraph=True, backend="aot_eager")
    actual = value_and_gradient(compiled, logits, target, alpha)
    expected = value_and_gradient(tampered_cross_entropy, logits, target, alpha)
    for ours, eager in zip(actual, expected, strict=True):
        assert_close(ours, eager)


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_a_tensor_alpha_takes_any_value_without_recompiling(case):
    torch.compiler.reset()
    logits, target, options = case.make()
    compiled = torch.compile(tampered_cross_entropy, fullgraph=True, backend="aot_eager")
    value_and_gradient(compiled, logits, target, torch.tensor(0.7), **options)
    with torch.compiler.set_stance("fail_on_recompile"):
        for alpha in (0.0, *ALPHAS):
            actual = value_and_gradient(compiled, logits, target, torch.tensor(alpha), **options)
            expected = value_and_gradient(
                tampered_cross_entropy, logits, target, torch.tensor(alpha), **options
            )
            for ours, eager in zip(actual, expected, strict=True):
                assert_close(ours, eager)


def test_vmap_over_alpha_gives_the_gradient_of_every_alpha():
    logits, target, _ = Case().make()
    alphas = torch.tensor(ALPHAS, dtype=torch.float64)

    def gradient(alpha):
        return grad(lambda z: tampered_cross_entropy(z, target, alpha))(logits)

    for actual, alpha in zip(vmap(gradient)(alphas), ALPHAS, strict=True):
        expected = grad(lambda z, alpha=alpha: surrogate(z, target, alpha))(logits)
        assert_close(actual, expected)


def test_vmap_over_alpha_holds_alpha_zero():
    logits, target, _ = Case().make()
    logits[:, 3] = -torch.inf

    def gradient(alpha):
        return grad(lambda z: tampered_cross_entropy(z, target, alpha))(logits)

    _, expected = value_and_gradient(tampered_cross_entropy, logits, target, 0.0)
    assert_close(vmap(gradient)(torch.zeros(2))[1], expected)
