"""Loss and gradient at once, on a GPU or in Triton's interpreter, as `test_triton.py`."""

import pytest
import torch

from softmax_gradient_tampering import tampered_cross_entropy
from softmax_gradient_tampering.loss import direct
from softmax_gradient_tampering.loss.kernels.options import Options
from tests.loss.cases import OPTION_CASES, Case, assert_close, assert_equal
from tests.loss.test_triton import DEVICE, HAS_GPU, INTERPRETS, by_triton, on_device, truth

pytestmark = pytest.mark.skipif(
    not (HAS_GPU or INTERPRETS), reason="needs a GPU or TRITON_INTERPRET=1"
)
if HAS_GPU or INTERPRETS:
    from softmax_gradient_tampering.loss.kernels.triton import fused, kernel


def at_once(logits, target, alpha, **options):
    """Loss and gradient for an incoming gradient that is not foreseen, and then once it is."""
    options = Options(**options, loss_dtype=torch.float32)
    assert fused.takes(logits, options)
    incoming = torch.tensor(0.75, device=DEVICE)
    results = []
    for foreseen in (0.5, 0.75):
        loss, stats, made = fused.forward(logits, target, alpha, options)
        made.predicted.fill_(foreseen)
        loss, stats, made = fused.forward(logits, target, alpha, options)
        grad = fused.backward(incoming, logits, target, alpha, stats, options, made)
        assert made.predicted == 0.75
        results.append((loss, grad))
    for mended, foreseen in zip(*results, strict=True):
        assert_equal(mended, foreseen)
    return results[0]


def assert_true(logits, target, alpha, **options):
    loss, grad = at_once(logits, target, alpha, **options)
    true_loss, true_grad = truth(logits, target, alpha, **options)
    assert_close(loss.double(), true_loss, "float32")
    assert_close(grad.double(), 0.75 * true_grad, "float32")


@pytest.fixture(autouse=True)
def rows_of_any_length(monkeypatch):
    """Only long rows are taken otherwise."""
    monkeypatch.setattr(fused, "SHORT_ROW", 0)
    fused._plain_plan.cache_clear()


SUMMED = [case for case in OPTION_CASES if case.reduction != "none"]


@pytest.mark.parametrize("case", SUMMED[::5], ids=str)
def test_loss_and_gradient_are_true_whatever_was_foreseen(case):
    assert_true(*on_device(case)[:2], 0.25, **on_device(case)[2])


@pytest.mark.parametrize("is_odd", [False, True])
@pytest.mark.parametrize("case", SUMMED[::9], ids=str)
def test_rows_of_several_blocks_are_true(case, is_odd, monkeypatch):
    """Of 300 classes rows begin at 16 bytes, of 301 blocks begin before their row."""
    monkeypatch.setattr(fused, "BLOCK_CLASSES", {4: 128})
    monkeypatch.setattr(fused, "_plan", _kept_no_longer(fused._plan))
    logits, target, options = on_device(Case((5, 300 + is_odd)))
    assert_true(logits, target, 0.25, **options | {"reduction": case.reduction})


def _kept_no_longer(plan_of):
    """Plans of other sizes are not taken; those of this one are, with what is foreseen."""
    plans = {}
    return lambda kind: plans.setdefault(kind, plan_of.__wrapped__(kind))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=str)
def test_logits_that_are_not_finite_give_what_torch_gives(value):
    logits, target, options = on_device(Case(reduction="sum"))
    logits[2, 1] = logits[4] = value
    for alpha in (0.25, 0.0):
        _, grad = at_once(logits, target, alpha, **options)
        two = kernel.backward(
            torch.tensor(0.75, device=DEVICE), logits, target, alpha,
            kernel.forward(logits, target, alpha, Options(**options, loss_dtype=torch.float32))[1],
            Options(**options, loss_dtype=torch.float32),
        )  # fmt: skip
        assert_close(grad, two, "float32")


def by_steps(logits, target, alpha):
    """The way of plain calls, which asks for a GPU."""
    return direct.OnDevice.apply(logits, target, alpha)


@pytest.fixture(params=["operator", "direct", "direct, short rows"])
def loss_fn(request, monkeypatch):
    monkeypatch.setattr(direct, "select_plain", lambda _: fused.PlainLogits)
    if "short" in request.param:
        monkeypatch.setattr(fused, "SHORT_ROW", 4096)
    return by_triton if request.param == "operator" else by_steps


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_any_sequence_of_incoming_gradients_is_right(loss_fn, dtype):
    logits, target, _ = on_device(Case((6, 40)), dtype)
    target[3] = -100
    _, true_grad = truth(logits, target, 0.25)
    for incoming in (1.0, 0.5, 0.5, 1024.0, torch.inf, 1.0, 0.0, 1.0):
        leaf = logits.clone().requires_grad_()
        loss = loss_fn(leaf, target, 0.25)
        assert (loss.dtype, loss.shape) == (dtype, ())
        loss.backward(torch.tensor(incoming, dtype=dtype, device=DEVICE))
        if incoming == torch.inf:
            assert not leaf.grad[0].isfinite().any()
            continue
        eps = torch.finfo(dtype).eps
        expected = incoming * true_grad
        error = (leaf.grad.double() - expected).abs()
        assert (error <= 1e-6 * incoming + 2 * eps * expected.abs() + 1e-7).all()
        assert_equal(leaf.grad[3], torch.zeros_like(leaf.grad[3]))


def test_a_graph_that_is_kept_gives_the_gradient_again(loss_fn):
    logits, target, _ = on_device(Case())
    leaf = logits.requires_grad_()
    loss = loss_fn(leaf, target, 0.25)
    (first,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    kept = first.clone()
    half = torch.tensor(0.5, device=DEVICE)
    (second,) = torch.autograd.grad(loss, leaf, half, retain_graph=True)
    (third,) = torch.autograd.grad(loss, leaf)
    assert_equal(first, kept)
    assert_close(second, kept / 2, "float32")
    assert_close(third, kept, "float32")
    assert len({grad.data_ptr() for grad in (first, second, third)}) == 3


def test_where_a_hook_gives_back_other_tensors_the_gradient_is_made_from_the_logits(loss_fn):
    logits, target, _ = on_device(Case())
    leaf = logits.clone().requires_grad_()

    def unpack(tensor):
        is_made = tensor.shape == logits.shape and not torch.equal(tensor, logits)
        return torch.full_like(tensor, torch.nan) if is_made else tensor.clone()

    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, unpack):
        loss_fn(leaf, target, 0.25).backward()
    assert_close(leaf.grad.double(), truth(logits, target, 0.25)[1], "float32")


def test_a_second_derivative_is_that_of_the_operator(loss_fn):
    logits, target, _ = on_device(Case())
    products = []
    for function in (loss_fn, lambda z, t, a: tampered_cross_entropy(z, t, a, kernel="reference")):
        leaf = logits.clone().requires_grad_()
        (first,) = torch.autograd.grad(function(leaf, target, 0.25), leaf, create_graph=True)
        products.append(torch.autograd.grad(first, leaf, logits)[0])
    assert_close(*products, "float32")


def test_logits_that_are_written_to_before_the_backward_pass_are_refused(loss_fn):
    logits, target, _ = on_device(Case())
    leaf = logits.clone().requires_grad_()
    hidden = leaf * 1
    loss = loss_fn(hidden, target, 0.25)
    hidden.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_what_is_not_recorded_makes_no_gradient(monkeypatch):
    logits, target, _ = on_device(Case())
    monkeypatch.setattr(fused, "forward", None)  # to be called would be an error
    by_triton(logits, target, 0.25)
    with torch.no_grad():
        by_triton(logits.clone().requires_grad_(), target, 0.25)


def test_plain_calls_on_a_device_take_plain_logits_alone():
    logits, target, _ = on_device(Case())
    takes = fused.PlainLogits.takes
    assert takes(logits, target)
    others = (
        (logits.double(), target), (logits.t().contiguous().t(), target), (logits, target.int()),
        (logits, target[:3]), (logits[:0], target[:0]), (logits.unsqueeze(2), target.unsqueeze(1)),
        (logits, logits.softmax(1)), (logits[0], target[0]),
    )  # fmt: skip
    assert not any(takes(*arguments) for arguments in others)


@pytest.mark.parametrize(
    "shape", [(3, 4097), (2**16 + 1, 4097), (3, 4096), (0, 4097), (3, 5000, 2)]
)
def test_rows_that_are_long_and_not_too_many_are_taken(shape, monkeypatch):
    monkeypatch.setattr(fused, "SHORT_ROW", 4096)
    logits, options = torch.empty(shape, device="meta"), Options(None, -100, "mean", 0.0, None)
    assert fused.takes(logits, options) == (shape == (3, 4097))
    assert not fused.takes(logits, options._replace(reduction="none"))


def test_the_gradient_that_was_made_is_handed_out_and_not_copied(loss_fn):
    logits, target, _ = on_device(Case())
    leaf = logits.clone().requires_grad_()
    loss = loss_fn(leaf, target, 0.25)
    saved = getattr(loss.grad_fn, "saved_tensors", ())
    made = [t.data_ptr() for t in saved if t is not None and t.shape == leaf.shape][1:]
    del saved
    loss.backward()
    assert not made or leaf.grad.data_ptr() == made[0]
