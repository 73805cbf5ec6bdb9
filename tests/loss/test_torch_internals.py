"""What torch's private names answer where the answer is known: a new version shows here first."""

import re
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import functionalize, grad, jacfwd, jacrev, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import softmax_gradient_tampering
from softmax_gradient_tampering.loss import torch_internals

PACKAGE = Path(softmax_gradient_tampering.__file__).parent


def test_only_one_module_uses_private_names_of_torch():
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(r"\btorch(\.\w+)*\._[a-zA-Z]", path.read_text())
    }
    assert users == {"loss/torch_internals.py"}


@pytest.mark.parametrize("transform", [grad, vmap], ids=["grad", "vmap"])
def test_a_transform_is_seen_while_it_is_active(transform):
    seen = []

    def function(x):
        seen.append(torch_internals.is_transformed())
        return x.sum()

    transform(function)(torch.ones(3))
    assert seen == [True]
    assert not torch_internals.is_transformed()


def test_the_transforms_that_lose_a_function_are_told_from_the_others():
    seen = []

    def function(x):
        seen.append((torch_internals.is_functionalized(), torch_internals.is_nested_forward_mode()))
        return x.sum()

    x = torch.ones(3)
    for called in (function, grad(function), jacrev(function), jacfwd(function)):
        called(x)
    functionalize(function)(x)
    jacfwd(jacfwd(function))(x)
    assert seen == [(False, False)] * 4 + [(True, False), (False, True)]


def test_what_is_differentiated_is_seen_through_every_transform():
    seen = []

    def of_alpha(alpha):
        return grad(lambda x: seen.append(torch_internals.is_differentiated(alpha)) or x.sum())(
            torch.ones(3)
        )

    alpha = torch.tensor(1.0)
    of_alpha(alpha)
    vmap(of_alpha)(alpha.expand(2))
    assert seen == [False, False]
    of_alpha(alpha.clone().requires_grad_())
    jacrev(of_alpha)(alpha)
    jacfwd(of_alpha)(alpha)
    with forward_ad.dual_level():
        of_alpha(forward_ad.make_dual(alpha, alpha))
    assert seen[2:] == [True] * 4


def test_a_batch_of_gradients_is_told_from_one():
    seen = []

    class Identity(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            seen.append(torch_internals.is_batch_of_gradients(grad))
            return grad

    x = torch.ones(3, requires_grad=True)
    y = Identity.apply(x)
    torch.autograd.grad(y, x, torch.ones(3), retain_graph=True)
    torch.autograd.grad(y, x, torch.eye(3), is_grads_batched=True)
    assert seen == [False, True]


def test_a_dispatch_mode_is_seen_while_it_is_active():
    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            return function(*args, **(kwargs or {}))

    assert not torch_internals.has_dispatch_mode()
    with Mode():
        assert torch_internals.has_dispatch_mode()
    assert not torch_internals.has_dispatch_mode()


@pytest.mark.parametrize("pre_dispatch", [False, True])
def test_a_graph_that_is_being_made_is_seen(pre_dispatch):
    seen = []

    def function(x):
        seen.append((torch_internals.has_dispatch_mode(), torch_internals.is_traced()))
        return x + 1

    make_fx(function, pre_dispatch=pre_dispatch)(torch.ones(3))
    assert seen == [(True, True)]
    assert not torch_internals.is_traced()


def test_a_fake_tensor_is_told_from_a_real_one():
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(torch.ones(3))
    assert torch_internals.is_fake(fake)
    assert not torch_internals.is_fake(torch.nn.Parameter(torch.ones(3)))
    assert not torch_internals.is_eager(fake)
    assert not torch_internals.is_eager(torch.ones(3, device="meta"))
    assert torch_internals.is_eager(torch.ones(3))


def test_a_dual_number_is_told_from_a_tensor():
    x = torch.ones(3)
    with forward_ad.dual_level():
        assert torch_internals.is_forward_mode()
        assert not torch_internals.has_tangent(x, None)
        assert torch_internals.has_tangent(None, x, forward_ad.make_dual(x, x))
    assert not torch_internals.is_forward_mode()


def test_below_autograd_nothing_is_recorded():
    x = torch.ones(3, requires_grad=True)
    with torch_internals.below_autograd():
        assert not (2 * x).requires_grad
    assert (2 * x).requires_grad


def test_an_assertion_fails_with_its_message():
    torch_internals.assert_on_device(torch.tensor(True), "never said")
    with pytest.raises(RuntimeError, match="a label is out of bounds"):
        torch_internals.assert_on_device(torch.tensor(False), "a label is out of bounds")


@pytest.mark.parametrize("value", [1.0, torch.inf, -torch.inf, torch.nan])
def test_gradients_that_are_not_finite_are_flagged_and_none_is_changed(value):
    gradients = [torch.ones(3), torch.tensor([0.5, value])]
    before, found = [gradient.clone() for gradient in gradients], torch.zeros(())
    torch_internals.flag_nonfinite_(gradients, found)
    assert found.item() == float(not torch.tensor(value).isfinite())
    torch.testing.assert_close(gradients, before, rtol=0, atol=0, equal_nan=True)
