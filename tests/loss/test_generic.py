"""tamper(): the value of l(z), the gradient of l(alpha z) / alpha, for any loss of logits."""

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import forward_ad
from torch.func import grad, vmap

from softmax_gradient_tampering import (
    tamper,
    tampered_binary_cross_entropy_with_logits,
    tampered_cross_entropy,
)
from tests.loss.cases import (
    ALPHAS,
    FEW_CASES,
    OPTION_CASES,
    REDUCTIONS,
    Case,
    assert_close,
    assert_equal,
    value_and_gradient,
)


def focal_loss(logits, target):
    log_p = logits.log_softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)
    return (-((1 - log_p.exp()) ** 2) * log_p).mean()


LOSSES = {
    "cross_entropy": F.cross_entropy,
    "multi_margin": F.multi_margin_loss,
    "focal": focal_loss,
    "module": nn.MultiMarginLoss(p=2, reduction="none"),
    "binary": lambda z, t: F.binary_cross_entropy_with_logits(z, F.one_hot(t, 5).to(z)),
}


@pytest.fixture(params=LOSSES)
def loss_fn(request):
    return LOSSES[request.param]


@pytest.mark.parametrize("alpha", [*ALPHAS, torch.tensor(0.25)], ids=str)
def test_value_is_that_at_z_and_gradient_that_at_alpha_z_over_alpha(loss_fn, alpha):
    logits, target, _ = Case().make()
    loss, gradient = value_and_gradient(tamper(loss_fn, alpha), logits, target)
    _, expected = value_and_gradient(lambda z, t: loss_fn(alpha * z, t) / alpha, logits, target)
    assert_equal(loss, loss_fn(logits, target))
    assert_close(gradient, expected)


def test_gradient_at_alpha_zero_is_that_of_the_loss_at_zero_logits(loss_fn):
    logits, target, _ = Case().make()
    loss, gradient = value_and_gradient(tamper(loss_fn, 0), logits, target)
    _, expected = value_and_gradient(loss_fn, torch.zeros_like(logits), target)
    assert_equal(loss, loss_fn(logits, target))
    assert_close(gradient, expected)


@pytest.mark.parametrize("case", OPTION_CASES, ids=str)
def test_the_tampered_cross_entropy_is_the_one_with_a_kernel(case):
    logits, target, options = case.make()
    for alpha in (0.0, 0.25):
        actual = value_and_gradient(tamper(F.cross_entropy, alpha), logits, target, **options)
        expected = value_and_gradient(tampered_cross_entropy, logits, target, alpha, **options)
        for generic, fast in zip(actual, expected, strict=True):
            assert_close(generic, fast)


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "binary"])
def test_second_derivative_is_that_at_alpha_z_over_alpha(name):
    logits, target, _ = Case().make()
    loss_fn, seconds = LOSSES[name], []
    for tampered in (tamper(loss_fn, 0.25), lambda z, t: loss_fn(0.25 * z, t) / 0.25):
        leaf = logits.clone().requires_grad_()
        (first,) = torch.autograd.grad(tampered(leaf, target), leaf, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), leaf)[0])
    assert_close(*seconds)


@pytest.mark.parametrize("differentiate", [torch.func.grad, torch.func.hessian, torch.func.jacfwd])
def test_torch_func_at_alpha_zero_is_refused_in_a_sentence(differentiate):
    logits, target, _ = Case().make()
    loss_fn = tamper(F.cross_entropy, 0)
    with pytest.raises(NotImplementedError, match="alpha 0 is not differentiated"):
        differentiate(lambda z: loss_fn(z, target))(logits)


def test_forward_mode_at_alpha_zero_is_refused_in_a_sentence():
    logits, target, _ = Case().make()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(logits, logits)
        with pytest.raises(NotImplementedError, match="nor in forward mode; take a small alpha"):
            tamper(F.cross_entropy, 0)(dual, target)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_forward_mode_under_vmap_has_the_dtype_of_the_loss(dtype):
    logits, target, _ = Case().make(dtype)
    loss_fn = tamper(F.cross_entropy, 0.25)
    _, expected = value_and_gradient(loss_fn, logits, target)
    actual = torch.func.jacfwd(lambda z: loss_fn(z, target))(logits)
    torch.testing.assert_close(actual, expected)


def test_a_second_derivative_at_alpha_zero_is_refused():
    logits, target, _ = Case().make()
    leaf = logits.requires_grad_()
    loss = tamper(F.cross_entropy, 0.0)(leaf, target)
    (first,) = torch.autograd.grad(loss, leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()


def test_vmap_gives_the_gradient_of_every_sample(loss_fn):
    logits, target, _ = Case().make()

    def gradient(loss, z, t):
        return grad(lambda z: loss(z.unsqueeze(0), t.unsqueeze(0)).sum())(z)

    if loss_fn is LOSSES["binary"]:  # one_hot does not know vmap
        loss_fn, target = F.binary_cross_entropy_with_logits, F.one_hot(target, 5).double()
    actual = vmap(lambda z, t: gradient(tamper(loss_fn, 0.25), z, t))(logits, target)
    for row, z, t in zip(actual, logits, target, strict=True):
        assert_close(row, gradient(lambda z, t: loss_fn(0.25 * z, t) / 0.25, z, t))


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_input_is_not_written_to(case):
    logits, target, options = case.make()
    before = logits.clone()
    value_and_gradient(tamper(F.cross_entropy, 0.25), logits, target, **options)
    assert_equal(logits, before)


def test_a_tampered_loss_can_be_pickled_and_copied(loss_fn):
    if loss_fn in (LOSSES["binary"], focal_loss):  # pickle finds no function of a test
        loss_fn = F.soft_margin_loss
    logits, target, _ = Case().make()
    target = target.unsqueeze(1).expand_as(logits) if loss_fn is F.soft_margin_loss else target
    tampered = tamper(loss_fn, 0.25)
    expected = value_and_gradient(tampered, logits, target)
    for duplicate in (pickle.loads(pickle.dumps(tampered)), copy.deepcopy(tampered)):
        for ours, original in zip(
            value_and_gradient(duplicate, logits, target), expected, strict=True
        ):
            assert_equal(ours, original)


@pytest.mark.parametrize("wrong", [[0.5], None, np.zeros(3)], ids=repr)
def test_what_is_no_tensor_is_refused_in_a_sentence(wrong):
    for arguments in ((wrong, torch.zeros(3)), (torch.zeros(3), wrong)):
        with pytest.raises(TypeError, match=r"(input|target) must be a tensor, not .*as_tensor"):
            tampered_binary_cross_entropy_with_logits(*arguments, 0.25)


BINARY_OPTIONS = {
    "plain": {},
    "weight": {"weight": torch.tensor([0.5, 1.0, 2.0, 1.5, 0.0])},
    "pos_weight": {"pos_weight": torch.tensor([0.5, 1.0, 2.0, 1.5, 3.0])},
    "both": {"weight": torch.tensor(2.0), "pos_weight": torch.tensor(3.0)},
}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("options", BINARY_OPTIONS.values(), ids=BINARY_OPTIONS)
def test_binary_cross_entropy_follows_torch_in_every_option(options, reduction):
    logits, target, _ = Case(soft=True).make()
    options = {**options, "reduction": reduction}
    for alpha in ALPHAS:

        def at_alpha_z(z, target, alpha=alpha):
            return F.binary_cross_entropy_with_logits(alpha * z, target, **options) / alpha

        loss, gradient = value_and_gradient(
            tampered_binary_cross_entropy_with_logits, logits, target, alpha, **options
        )
        assert_close(loss, F.binary_cross_entropy_with_logits(logits, target, **options))
        assert_close(gradient, value_and_gradient(at_alpha_z, logits, target)[1])


@pytest.mark.parametrize("alpha", [0.0, *ALPHAS])
def test_binary_gradient_replaces_p_by_the_sigmoid_of_alpha_z(alpha):
    logits, target, _ = Case(soft=True).make()
    _, gradient = value_and_gradient(
        tampered_binary_cross_entropy_with_logits, logits, target, alpha, reduction="sum"
    )
    assert_close(gradient, torch.sigmoid(alpha * logits) - target)


def test_binary_of_a_logit_is_the_cross_entropy_of_two_classes():
    logits, _, _ = Case(shape=(7,)).make()
    target = torch.arange(7) % 2
    loss, gradient = value_and_gradient(
        tampered_binary_cross_entropy_with_logits, logits, target.double(), 0.25
    )
    two = torch.stack([torch.zeros(7, dtype=torch.float64), logits], dim=1)
    expected, of_two = value_and_gradient(tampered_cross_entropy, two, target, 0.25)
    assert_close(loss, expected)
    assert_close(gradient, of_two[:, 1])


def test_a_loss_may_have_arguments_of_any_name():
    logits, target, _ = Case().make()

    def loss(z, target, alpha, loss_fn):
        return alpha * loss_fn(z, target)

    def called(z, t):
        return tamper(loss, 0.25)(z, t, alpha=2.0, loss_fn=F.cross_entropy)

    actual = value_and_gradient(called, logits, target)
    expected = value_and_gradient(tamper(F.cross_entropy, 0.25), logits, target)
    for ours, half in zip(actual, expected, strict=True):
        assert_close(ours, 2 * half)


@pytest.mark.parametrize("wrap", [lambda loss: (loss, 1), lambda loss: {"loss": loss}])
def test_a_loss_that_is_more_than_a_tensor_is_refused_in_a_sentence(wrap):
    logits, target, _ = Case().make()
    with pytest.raises(TypeError, match=r"must return a tensor, not a (tuple|dict); pass"):
        tamper(lambda z, t: wrap(F.cross_entropy(z, t)), 0.25)(logits, target)
