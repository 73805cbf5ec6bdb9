"""Every kernel against the reference, and its blocks against the whole."""

from itertools import product

import pytest
import torch

from softmax_gradient_tampering.loss.kernels import cpu, reference
from softmax_gradient_tampering.loss.kernels.options import Options
from tests.loss.cases import OPTION_CASES, Case, assert_close, assert_equal

# In elements: one row at a time, a few rows, a last block that is not full, one block.
BLOCK_SIZES = (1, 10, 15, cpu.BLOCK_SIZE)


def kernel_arguments(case, dtype=torch.float64):
    logits, target, options = case.make(dtype)
    return logits, target, Options(**options, loss_dtype=dtype)


def forward_and_backward(kernel, logits, target, alpha, options):
    loss, stats = kernel.forward(logits, target, alpha, options)
    incoming = 1 + torch.arange(loss.numel(), dtype=loss.dtype).reshape(loss.shape) / 7
    return loss, stats, kernel.backward(incoming, logits, target, alpha, stats, options)


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("case", OPTION_CASES, ids=str)
def test_cpu_kernel_is_the_reference(case, block_size, monkeypatch):
    monkeypatch.setattr(cpu, "BLOCK_SIZE", block_size)
    logits, target, options = kernel_arguments(case)
    for alpha in (0.0, 0.25, 1.0, torch.tensor(0.25), torch.tensor(0.0)):
        actual = forward_and_backward(cpu, logits, target, alpha, options)
        expected = forward_and_backward(reference, logits, target, alpha, options)
        for ours, oracle in zip(actual, expected, strict=True):
            assert_close(ours, oracle)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_blocks_leave_every_row_of_the_gradient_as_it_is(dtype, reduction, monkeypatch):
    logits, target, options = kernel_arguments(Case(reduction=reduction), dtype)
    *_, expected = forward_and_backward(cpu, logits, target, 0.25, options)
    monkeypatch.setattr(cpu, "BLOCK_SIZE", 10)
    *_, actual = forward_and_backward(cpu, logits, target, 0.25, options)
    assert_equal(actual, expected)


@pytest.mark.parametrize("soft", [False, True])
def test_a_tensor_larger_than_a_block_equals_the_reference(soft):
    logits, target, options = kernel_arguments(Case(shape=(300, 1000), soft=soft), torch.float32)
    assert logits.numel() > cpu.BLOCK_SIZE
    *_, actual = forward_and_backward(cpu, logits, target, 0.25, options)
    *_, expected = forward_and_backward(reference, logits, target, 0.25, options)
    assert_close(actual, expected, "float32")


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_an_all_ignored_batch_has_gradient_zero_in_blocks(block_size, monkeypatch):
    monkeypatch.setattr(cpu, "BLOCK_SIZE", block_size)
    logits, target, options = kernel_arguments(Case())
    target = torch.full_like(target, -100)
    loss, _, grad = forward_and_backward(cpu, logits, target, 0.25, options)
    assert loss.isnan()
    assert_equal(grad, torch.zeros_like(logits))


@pytest.mark.parametrize("kernel", [cpu, reference], ids=["cpu", "reference"])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_gradient_has_the_shape_and_dtype_of_the_logits(kernel, block_size, monkeypatch):
    monkeypatch.setattr(cpu, "BLOCK_SIZE", block_size)
    for case, dtype in product((Case(), Case(soft=True)), (torch.bfloat16, torch.float32)):
        logits, target, options = kernel_arguments(case, dtype)
        logits = logits.t().contiguous().t()
        loss, stats, grad = forward_and_backward(kernel, logits, target, 0.25, options)
        assert (grad.shape, grad.dtype) == (logits.shape, logits.dtype)
        assert (loss.shape, loss.dtype) == ((), dtype)
        assert (stats.shape, stats.dtype) == ((), torch.float32)
