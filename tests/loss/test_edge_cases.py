"""Inputs at the edge: confident and -inf logits, empty and ignored batches, odd layouts."""

import pytest
import torch
import torch.nn.functional as F

from softmax_gradient_tampering import tampered_cross_entropy
from tests.loss.cases import (
    ALPHAS,
    CASES,
    FEW_CASES,
    REDUCTIONS,
    SMOOTHINGS,
    Case,
    assert_close,
    assert_equal,
    surrogate,
    value_and_gradient,
)


def assert_laws(logits, target, alpha, **options):
    """Value and gradient, nan and inf included, as torch has them."""
    loss, grad = value_and_gradient(tampered_cross_entropy, logits, target, alpha, **options)
    _, expected = value_and_gradient(surrogate, logits, target, alpha, **options)
    assert_close(loss, F.cross_entropy(logits, target, **options))
    assert_close(grad, expected)
    return loss, grad


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_confident_logits_give_finite_values_and_gradients(dtype, smoothing, alpha):
    logits = torch.tensor([[100.0, -100.0, 0.0], [-100.0, 100.0, 99.0]], dtype=dtype)
    target = torch.tensor([1, 1])
    loss, grad = value_and_gradient(
        tampered_cross_entropy, logits, target, alpha, label_smoothing=smoothing
    )
    assert loss.isfinite()
    _, expected = value_and_gradient(
        surrogate, logits.double(), target, alpha, label_smoothing=smoothing
    )
    # Half types round the result once, float32 the product alpha z of 100 too.
    eps = torch.finfo(dtype).eps
    assert (grad.double() - expected).abs().max() <= max(eps / 4, 1e-5)


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_laws_hold_for_confident_logits(case):
    logits, target, options = case.make(scale=50.0)
    assert logits.abs().max() > 100
    for alpha in ALPHAS:
        assert_laws(logits, target, alpha, **options)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_minus_inf_logits_give_the_values_and_gradients_of_torch(reduction, smoothing, alpha):
    logits, target, options = Case(reduction=reduction, smoothing=smoothing).make()
    logits[:, 3] = -torch.inf
    assert (target == 3).any()
    assert_laws(logits, target, alpha, **options)
    _, grad = assert_laws(logits, target.masked_fill(target == 3, 0), alpha, **options)
    assert grad.isfinite().all()


@pytest.mark.parametrize("alpha", [0.0, torch.tensor(0.0)], ids=["number", "tensor"])
@pytest.mark.parametrize("soft", [False, True])
def test_alpha_zero_is_uniform_over_the_classes_above_minus_inf(soft, alpha):
    logits, target, _ = Case().make()
    logits[:, 3] = -torch.inf
    target = target.masked_fill(target == 3, 0)
    q = F.one_hot(target, 5).double()
    _, grad = value_and_gradient(tampered_cross_entropy, logits, q if soft else target, alpha)
    uniform = torch.tensor([1, 1, 1, 0, 1], dtype=torch.float64) / 4
    assert_close(grad, (uniform - q) / 7)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("shape", [(0, 5), (0, 5, 3), (2, 5, 0)], ids=str)
def test_an_empty_batch_gives_what_torch_gives(shape, soft, reduction):
    logits, target, options = Case(shape=shape, soft=soft, reduction=reduction).make()
    loss, grad = assert_laws(logits, target, 0.25, **options)
    assert grad.shape == shape
    if reduction == "mean":
        assert loss.isnan()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("weighted", [False, True])
def test_an_all_ignored_batch_gives_what_torch_gives(weighted, smoothing, reduction):
    case = Case(weighted=weighted, reduction=reduction, smoothing=smoothing)
    logits, target, options = case.make()
    loss, grad = assert_laws(logits, torch.full_like(target, -100), 0.25, **options)
    assert_equal(grad, torch.zeros_like(grad))
    assert loss.isnan().all() if reduction == "mean" else (loss == 0).all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_classes_of_weight_zero_give_what_torch_gives(reduction):
    logits, target, options = Case(weighted=True, reduction=reduction).make()
    options["weight"][target[0]] = 0
    assert_laws(logits, target, 0.25, **options)
    assert_laws(logits, target[:1].expand(7), 0.25, **options)


@pytest.mark.parametrize("case", CASES[:: len(CASES) // 40], ids=str)
def test_inputs_are_never_written_to(case):
    logits, target, options = case.make()
    before = logits.clone(), target.clone(), {**options}
    weight = None if options["weight"] is None else options["weight"].clone()
    leaf = logits.requires_grad_()
    loss = tampered_cross_entropy(leaf, target, 0.25, **options)
    incoming = torch.ones_like(loss)
    loss.backward(incoming)
    assert_equal(leaf.detach(), before[0])
    assert_equal(target, before[1])
    assert_equal(incoming, torch.ones_like(loss))
    if weight is not None:
        assert_equal(options["weight"], weight)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32], ids=str)
@pytest.mark.parametrize("case", [Case(), Case(ignored=True, weighted=True)], ids=str)
def test_targets_of_any_integer_dtype_equal_those_of_int64(case, dtype):
    logits, target, options = case.make()
    expected = value_and_gradient(tampered_cross_entropy, logits, target, 0.25, **options)
    target = target.to(dtype)
    actual = value_and_gradient(tampered_cross_entropy, logits, target, 0.25, **options)
    for ours, of_int64 in zip(actual, expected, strict=True):
        assert_equal(ours, of_int64)


@pytest.mark.parametrize(
    "layout",
    [
        lambda tensor: tensor.t().contiguous().t(),
        lambda tensor: tensor.repeat_interleave(2, dim=1)[:, ::2],
        lambda tensor: tensor.flip(0).clone().flip(0),
    ],
    ids=["transposed", "strided", "flipped"],
)
@pytest.mark.parametrize("case", [Case(), Case(smoothing=0.1), Case(soft=True)], ids=str)
def test_layout_of_the_input_changes_nothing(case, layout):
    logits, target, options = case.make()
    leaf = logits.clone().requires_grad_()
    loss = tampered_cross_entropy(layout(leaf), target, 0.25, **options)
    loss.backward()
    expected = value_and_gradient(tampered_cross_entropy, logits, target, 0.25, **options)
    assert_close(loss.detach(), expected[0])
    assert_close(leaf.grad, expected[1])


def test_channels_last_logits_equal_contiguous_ones():
    logits, target, options = Case(shape=(2, 3, 4, 5)).make()
    expected = value_and_gradient(tampered_cross_entropy, logits, target, 0.25, **options)
    logits = logits.to(memory_format=torch.channels_last)
    actual = value_and_gradient(tampered_cross_entropy, logits, target, 0.25, **options)
    for channels_last, contiguous in zip(actual, expected, strict=True):
        assert_close(channels_last, contiguous)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_a_soft_target_gets_the_gradient_of_the_loss_at_alpha_z(smoothing, reduction):
    logits, target, options = Case(soft=True, reduction=reduction, smoothing=smoothing).make()
    grads = []
    for loss_fn in (tampered_cross_entropy, surrogate):
        leaves = logits.clone().requires_grad_(), target.clone().requires_grad_()
        loss = loss_fn(*leaves, 0.25, **options)
        grads.append(torch.autograd.grad(loss.sum(), leaves))
    for ours, torchs in zip(*grads, strict=True):
        assert_close(ours, torchs)


def test_a_target_that_requires_a_gradient_changes_nothing_at_alpha_zero():
    logits, target, _ = Case(soft=True).make()
    logits[:, 3] = -torch.inf
    target = target.masked_fill(torch.arange(5) == 3, 0)
    _, expected = value_and_gradient(tampered_cross_entropy, logits, target, 0.0)
    _, actual = value_and_gradient(tampered_cross_entropy, logits, target.requires_grad_(), 0.0)
    assert_close(actual, expected)


def test_a_loss_without_gradient_is_computed():
    logits, target, _ = Case().make()
    with torch.inference_mode():
        loss = tampered_cross_entropy(logits, target, 0.25)
    assert not loss.requires_grad
    assert_close(loss, F.cross_entropy(logits, target))


def test_gradients_accumulate_over_micro_batches_to_that_of_the_whole_batch():
    logits, target, _ = Case(shape=(8, 5)).make()
    _, expected = value_and_gradient(tampered_cross_entropy, logits, target, 0.25)
    leaf = logits.requires_grad_()
    for rows in torch.arange(8).split(2):
        (tampered_cross_entropy(leaf[rows], target[rows], 0.25) / 4).backward()
    assert_close(leaf.grad, expected)


@pytest.mark.parametrize("kernel", ["auto", "reference", "blocks", "cpu"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_default_device_is_nobodys_concern(kernel, reduction):
    options = {"label_smoothing": 0.1, "reduction": reduction, "kernel": kernel}
    for dtype in (torch.float32, torch.bfloat16):
        logits, target, _ = Case().make(dtype)
        expected = value_and_gradient(tampered_cross_entropy, logits, target, 0.25, **options)
        with torch.device("meta"):
            actual = value_and_gradient(tampered_cross_entropy, logits, target, 0.25, **options)
        for each, same in zip(actual, expected, strict=True):
            assert_equal(each, same)
