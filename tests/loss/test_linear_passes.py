"""The linear loss's passes over blocks on a GPU, there or in Triton's interpreter on a CPU.

The laws of the loss are in `test_linear.py`; here the passes are against torch's own operations.
"""

import pytest
import torch

from softmax_gradient_tampering.loss.linear import device, kernel, native, operator
from tests.loss.cases import OPTION_CASES, Case, assert_close, assert_equal
from tests.loss.test_linear import make, of_hidden, of_logits, value_and_gradients
from tests.loss.test_triton import DEVICE, HAS_GPU, INTERPRETS

pytestmark = pytest.mark.skipif(
    not (HAS_GPU or INTERPRETS), reason="needs a GPU or TRITON_INTERPRET=1"
)


@pytest.fixture(autouse=True)
def by_passes(monkeypatch):
    """Blocks of three of five classes, on a CPU too, where products have no dtype of their own."""
    from softmax_gradient_tampering.loss.kernels.triton import passes

    monkeypatch.setattr(kernel, "block_size", lambda *_: 3)
    if HAS_GPU:
        return
    monkeypatch.setattr(native, "takes", lambda *_: False)
    monkeypatch.setattr(device, "select_class_blocks", lambda _: passes)
    monkeypatch.setattr(device, "has_mixed_product", lambda _: True)
    monkeypatch.setattr(device, "operand", lambda tensor, dtype: tensor)
    for module in (device, kernel):
        monkeypatch.setattr(module, "product", lambda a, b, dtype: a.to(dtype) @ b.to(dtype))
    monkeypatch.setattr(kernel, "operand", lambda tensor, dtype: tensor)


def on_device(case, dtype=torch.float32):
    arguments = make(case, dtype)
    moved = [None if tensor is None else tensor.to(DEVICE) for tensor in arguments[:4]]
    options = dict(arguments.options)
    if options["weight"] is not None:
        options["weight"] = options["weight"].to(DEVICE)
    return type(arguments)(*moved, options)


def double(arguments):
    moved = [
        tensor.double() if tensor is not None and tensor.is_floating_point() else tensor
        for tensor in arguments[:4]
    ]
    weight = arguments.options["weight"]
    weight = None if weight is None else weight.double()
    return type(arguments)(*moved, arguments.options | {"weight": weight})


def assert_true(arguments, alpha):
    actual = value_and_gradients(of_hidden, arguments, alpha)
    for ours, true in zip(
        actual, value_and_gradients(of_logits, double(arguments), alpha), strict=True
    ):
        assert_close(ours.double(), true, "float32")
    return actual


@pytest.mark.parametrize("case", OPTION_CASES[::5], ids=str)
def test_value_and_gradients_are_true(case):
    for alpha in (0.25, 0.0):
        assert_true(on_device(case), alpha)


@pytest.mark.parametrize("case", OPTION_CASES[1::16], ids=str)
def test_without_bias(case):
    assert_true(on_device(case)._replace(bias=None), 0.25)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_types_are_as_near_the_truth_as_torchs_own_operations(dtype, monkeypatch):
    arguments = on_device(Case((7, 5), smoothing=0.1), dtype)
    true = value_and_gradients(of_logits, double(arguments), 0.25)
    ours = value_and_gradients(of_hidden, arguments, 0.25)
    assert device.takes(kernel.Head(*arguments[:3]), arguments.target, 0.25, _options())
    monkeypatch.setattr(device, "takes", lambda *_: False)
    torchs = value_and_gradients(of_hidden, arguments, 0.25)
    for actual, plain, exact in zip(ours, torchs, true, strict=True):
        assert actual.dtype == dtype
        worst = (plain.double() - exact).abs().max()
        ulp = torch.finfo(dtype).eps * exact.abs().max()
        assert (actual.double() - exact).abs().max() <= worst + ulp


def _options():
    from softmax_gradient_tampering.loss.kernels.options import Options

    return Options(None, -100, "mean", 0.1, torch.float32)


def test_alpha_on_the_device_is_the_number():
    arguments = on_device(Case())
    expected = value_and_gradients(of_hidden, arguments, 0.25)
    alpha = torch.tensor(0.25, device=DEVICE)
    for ours, of_number in zip(
        value_and_gradients(of_hidden, arguments, alpha), expected, strict=True
    ):
        assert_equal(ours, of_number)


def test_an_all_ignored_batch_is_nan_with_gradient_zero():
    arguments = on_device(Case())
    arguments = arguments._replace(target=torch.full_like(arguments.target, -100))
    loss, *grads = value_and_gradients(of_hidden, arguments, 0.25)
    assert loss.isnan()
    assert all(grad.eq(0).all() for grad in grads)


def test_minus_inf_in_a_bias_takes_the_class_out():
    arguments = on_device(Case())
    arguments.bias[0] = -torch.inf  # of the first block
    arguments = arguments._replace(target=arguments.target.clamp(min=1))
    for alpha in (0.25, 0.0):
        assert_true(arguments, alpha)


def test_the_operator_takes_the_passes():
    head = kernel.Head(*on_device(Case())[:3])
    arguments = head, on_device(Case()).target, 0.25, _options()
    assert operator._kernel(*arguments) is device
