"""What torch does to a function: differentiate twice, vmap, forward mode, autocast, opcheck."""

import pytest
import torch
import torch.autograd.forward_ad as fwd
import torch.nn.functional as F
from torch.func import functionalize, grad, hessian, jacfwd, jacrev, jvp, vmap

from softmax_gradient_tampering import (
    tamper,
    tampered_cross_entropy,
    tampered_linear_cross_entropy,
)
from tests.loss.cases import (
    FEW_CASES,
    OPTION_CASES,
    Case,
    assert_close,
    assert_equal,
    surrogate,
    value_and_gradient,
)

ALPHA = 0.25


def closures(target, options):
    """The tampered loss and torch's surrogate, as functions of the logits alone."""
    return (
        lambda z: tampered_cross_entropy(z, target, ALPHA, **options),
        lambda z: surrogate(z, target, ALPHA, **options),
    )


def tangent_of(tensor):
    return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1), dtype=tensor.dtype)


@pytest.mark.parametrize("case", OPTION_CASES, ids=str)
def test_second_derivative_is_that_of_the_loss_at_alpha_z(case):
    logits, target, options = case.make()
    products = []
    for loss_fn in closures(target, options):
        leaf = logits.clone().requires_grad_()
        (first,) = torch.autograd.grad(loss_fn(leaf).sum(), leaf, create_graph=True)
        products.append(torch.autograd.grad(first, leaf, tangent_of(logits))[0])
    assert_close(*products)
    assert products[0].abs().max() > 1e-4


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_gradient_is_differentiable_in_logits_and_incoming_gradient(case):
    logits, target, options = case.make()
    tampered, _ = closures(target, options)
    assert torch.autograd.gradgradcheck(tampered, logits.requires_grad_())


@pytest.mark.parametrize("case", OPTION_CASES, ids=str)
def test_func_grad_is_the_gradient(case):
    logits, target, options = case.make()
    tampered, at_alpha_z = closures(target, options)
    assert_close(
        grad(lambda z: tampered(z).sum())(logits), grad(lambda z: at_alpha_z(z).sum())(logits)
    )


@pytest.mark.parametrize("transform", [jacrev, jacfwd, hessian], ids=lambda f: f.__name__)
@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_jacobians_and_hessians_are_those_of_the_loss_at_alpha_z(case, transform):
    logits, target, options = case.make()
    tampered, at_alpha_z = closures(target, options)
    assert_close(transform(tampered)(logits), transform(at_alpha_z)(logits))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(7, 5), (600, 1000)], ids=str)
def test_incoming_gradients_may_come_in_batches(shape, dtype):
    logits, target, _ = Case(shape=shape).make(dtype)
    logits.requires_grad_()
    incoming = torch.eye(shape[0], dtype=dtype)[:3]

    def gradient(incoming, **kwargs):
        loss = tampered_cross_entropy(logits, target, 0.25, reduction="none")
        return torch.autograd.grad(loss, logits, incoming, **kwargs)[0]

    batched = gradient(incoming, is_grads_batched=True)
    torch.testing.assert_close(batched, torch.stack([gradient(one) for one in incoming]))


LOSSES = {
    "cross-entropy": lambda z, target: tampered_cross_entropy(z, target, ALPHA),
    "smoothed": lambda z, target: tampered_cross_entropy(z, target, ALPHA, label_smoothing=0.1),
    "generic": lambda z, target: tamper(F.cross_entropy, ALPHA)(z, target),
    "linear": lambda z, target: tampered_linear_cross_entropy(
        z, z.new_ones(5).diag(), target, ALPHA
    ),
}
DERIVATIVES = {
    "jacfwd of jacfwd": lambda loss, z: jacfwd(jacfwd(loss))(z),
    "jvp of jvp": lambda loss, z: jvp(lambda z: jvp(loss, (z,), (z.cos(),))[1], (z,), (z.sin(),)),
    "hessian of jvp": lambda loss, z: hessian(lambda z: jvp(loss, (z,), (z.cos(),))[1])(z),
    "vmap of both": lambda loss, z: vmap(jacfwd(jacfwd(loss)))(torch.stack([z, -z])),
}


@pytest.mark.parametrize("derivative", DERIVATIVES)
@pytest.mark.parametrize("name", LOSSES)
def test_forward_mode_within_forward_mode_is_that_of_the_loss_at_alpha_z(name, derivative):
    logits, target, _ = Case(shape=(3, 5)).make()
    smoothing = 0.1 if name == "smoothed" else 0.0
    expected = DERIVATIVES[derivative](
        lambda z: surrogate(z, target, ALPHA, label_smoothing=smoothing), logits
    )
    actual = DERIVATIVES[derivative](lambda z: LOSSES[name](z, target), logits)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_an_exported_loss_has_both_tangents_too():
    logits, target, _ = Case(shape=(3, 5)).make()

    class Loss(torch.nn.Module):
        def forward(self, z):
            return LOSSES["cross-entropy"](z, target)

    graph = torch.export.export(Loss(), (logits,)).module()
    assert_close(
        jacfwd(jacfwd(graph))(logits), hessian(lambda z: surrogate(z, target, ALPHA))(logits)
    )


@pytest.mark.parametrize("is_compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("name", ["cross-entropy", "smoothed", "generic"])
def test_an_infinite_loss_has_the_gradient_of_torch(name, is_compiled):
    torch.compiler.reset()
    logits, target, _ = Case(shape=(3, 5)).make()
    logits[0, target[0]] = -torch.inf
    smoothing = 0.1 if name == "smoothed" else 0.0

    def gradient(z):
        return grad(lambda z: LOSSES[name](z, target))(z)

    if is_compiled:
        gradient = torch.compile(gradient, backend="eager", fullgraph=True)
    expected = grad(lambda z: surrogate(z, target, ALPHA, label_smoothing=smoothing))(logits)
    assert_close(gradient(logits), expected)


@pytest.mark.parametrize(
    "transform",
    [lambda f: functionalize(grad(f)), lambda f: grad(functionalize(f)), functionalize],
    ids=["of grad", "in grad", "alone"],
)
@pytest.mark.parametrize("name", LOSSES)
def test_functionalize_is_refused_in_a_sentence(name, transform):
    logits, target, _ = Case().make()
    with pytest.raises(NotImplementedError, match=r"functionalize cannot take .* leave it out"):
        transform(lambda z: LOSSES[name](z, target))(logits)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_vmap_gives_the_value_and_gradient_of_every_sample(smoothing, soft):
    # Torch knows no vmap of the weighted, smoothed mean: the sum.
    case = Case(soft=soft, weighted=True, reduction="sum", smoothing=smoothing)
    logits, target, options = case.make()

    def per_sample(z, t):
        return grad(lambda z: tampered_cross_entropy(z, t, ALPHA, **options))(z)

    actual = vmap(per_sample)(logits, target)
    values = vmap(lambda z, t: tampered_cross_entropy(z, t, ALPHA, **options))(logits, target)
    for z, t, gradient, value in zip(logits, target, actual, values, strict=True):
        expected = value_and_gradient(surrogate, z, t, ALPHA, **options)[1]
        assert_close(gradient, expected)
        assert_close(value, F.cross_entropy(z, t, **options))


def test_vmap_over_batches_of_images_gives_the_gradient_of_every_batch():
    logits, target, _ = Case(shape=(6, 5, 3)).make()
    stacked = logits.reshape(3, 2, 5, 3), target.reshape(3, 2, 3)
    actual = vmap(grad(lambda z, t: tampered_cross_entropy(z, t, ALPHA)))(*stacked)
    expected = [
        value_and_gradient(surrogate, z, t, ALPHA)[1] for z, t in zip(*stacked, strict=True)
    ]
    assert_close(actual, torch.stack(expected))


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_func_jvp_is_that_of_the_loss_at_alpha_z(case):
    logits, target, options = case.make()
    tampered, at_alpha_z = closures(target, options)
    tangent = (tangent_of(logits),)
    value, actual = jvp(tampered, (logits,), tangent)
    assert_close(value, F.cross_entropy(logits, target, **options))
    assert_close(actual, jvp(at_alpha_z, (logits,), tangent)[1])


def right_or_raises(tampered, at_alpha_z, primals):
    """Forward-mode AD: the tangent of the loss at alpha z, or an error; nothing else."""
    tangents = tuple(tangent_of(primal) for primal in primals)
    try:
        _, actual = jvp(tampered, primals, tangents)
    except (NotImplementedError, RuntimeError):
        return
    assert_close(actual, jvp(at_alpha_z, primals, tangents)[1])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_func_jvp_in_a_soft_target_is_right_or_raises(smoothing):
    logits, target, _ = Case(soft=True).make()
    right_or_raises(
        lambda z, q: tampered_cross_entropy(z, q, ALPHA, label_smoothing=smoothing),
        lambda z, q: surrogate(z, q, ALPHA, label_smoothing=smoothing),
        (logits, target),
    )
    right_or_raises(
        lambda q: tampered_cross_entropy(logits, q, ALPHA, label_smoothing=smoothing),
        lambda q: surrogate(logits, q, ALPHA, label_smoothing=smoothing),
        (target,),
    )


def test_func_jvp_in_the_class_weights_is_right_or_raises():
    logits, target, options = Case(soft=True, weighted=True).make()
    right_or_raises(
        lambda w: tampered_cross_entropy(logits, target, ALPHA, weight=w),
        lambda w: surrogate(logits, target, ALPHA, weight=w),
        (options["weight"],),
    )


@pytest.mark.parametrize("shape", [(5,), (7, 5), (4, 5, 3)], ids=str)
@pytest.mark.parametrize("argument", ["logits", "target", "weight"])
def test_forward_mode_by_dual_numbers_is_that_of_the_loss_at_alpha_z(argument, shape):
    logits, target, options = Case(shape, soft=True, weighted=True).make()
    primals = {"logits": logits, "target": target, "weight": options["weight"]}
    with fwd.dual_level():
        primals[argument] = fwd.make_dual(primals[argument], tangent_of(primals[argument]))
        arguments = primals["logits"], primals["target"], ALPHA
        value, actual = fwd.unpack_dual(
            tampered_cross_entropy(*arguments, weight=primals["weight"])
        )
        expected = fwd.unpack_dual(surrogate(*arguments, weight=primals["weight"])).tangent
    assert_close(value, F.cross_entropy(logits, target, weight=options["weight"]))
    assert_close(actual, expected)


@pytest.mark.parametrize("kernel", ["auto", "reference", "blocks"])
@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_dual_logits_have_the_tangent_of_every_option_and_kernel(case, kernel):
    logits, target, options = case.make()
    with fwd.dual_level():
        dual = fwd.make_dual(logits, tangent_of(logits))
        actual = tampered_cross_entropy(dual, target, ALPHA, kernel=kernel, **options)
        expected = surrogate(dual, target, ALPHA, **options)
        assert_close(fwd.unpack_dual(actual).tangent, fwd.unpack_dual(expected).tangent)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_autocast_gives_a_float32_loss_and_the_gradient_in_the_dtype_of_the_input(case, dtype):
    logits, target, options = case.make(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        loss, gradient = value_and_gradient(
            tampered_cross_entropy, logits, target, ALPHA, **options
        )
        torchs = F.cross_entropy(logits, target, **options)
    assert loss.dtype == torchs.dtype == torch.float32
    assert gradient.dtype == dtype
    assert_close(loss, torchs, "float32")
    _, outside = value_and_gradient(
        tampered_cross_entropy,
        logits.float(),
        target,
        ALPHA,
        **{**options, "weight": None if options["weight"] is None else options["weight"].float()},
    )
    assert_equal(gradient, outside.to(dtype))


def test_autocast_accepts_float32_class_weights_with_half_logits():
    logits, target, options = Case(weighted=True).make(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        loss = tampered_cross_entropy(logits, target, ALPHA, options["weight"].float())
        torchs = F.cross_entropy(logits, target, options["weight"].float())
    assert_close(loss, torchs, "float32")
