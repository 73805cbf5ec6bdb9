"""Every kernel against the reference, and its blocks against the whole."""

from itertools import product

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from softmax_gradient_tampering import tampered_cross_entropy
from softmax_gradient_tampering.loss.kernels import reference, selection
from softmax_gradient_tampering.loss.kernels.cpu import blocks
from softmax_gradient_tampering.loss.kernels.options import Options
from softmax_gradient_tampering.loss.kernels.selection import describe_kernel
from tests.loss.cases import (
    FEW_CASES,
    OPTION_CASES,
    Case,
    assert_close,
    assert_equal,
    value_and_gradient,
)

# In elements: one row at a time, a few rows, a last block that is not full, one block.
BLOCK_SIZES = (1, 10, 15, blocks.BLOCK_SIZE)


def kernel_arguments(case, dtype=torch.float64):
    logits, target, options = case.make(dtype)
    return logits, target, Options(**options, loss_dtype=dtype)


def set_block_size(monkeypatch, block_size):
    """Blocks of this many elements."""
    monkeypatch.setattr(blocks, "BLOCK_SIZE", block_size)


def forward_and_backward(kernel, logits, target, alpha, options):
    loss, stats = kernel.forward(logits, target, alpha, options)
    incoming = 1 + torch.arange(loss.numel(), dtype=loss.dtype).reshape(loss.shape) / 7
    return loss, stats, kernel.backward(incoming, logits, target, alpha, stats, options)


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("case", OPTION_CASES, ids=str)
def test_blocks_are_the_reference(case, block_size, monkeypatch):
    set_block_size(monkeypatch, block_size)
    logits, target, options = kernel_arguments(case)
    for alpha in (0.0, 0.25, 1.0, torch.tensor(0.25), torch.tensor(0.0)):
        actual = forward_and_backward(blocks, logits, target, alpha, options)
        expected = forward_and_backward(reference, logits, target, alpha, options)
        for ours, oracle in zip(actual, expected, strict=True):
            assert_close(ours, oracle)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("few", [1, 16])
def test_what_is_done_of_many_classes_in_half_is_the_reference_of_few_too(few, dtype, monkeypatch):
    set_block_size(monkeypatch, 15)
    monkeypatch.setattr(blocks, "FEW_CLASSES", few)
    monkeypatch.setattr(blocks, "MANY_CLASSES", 1)
    for case in OPTION_CASES:
        logits, target, options = kernel_arguments(case, dtype)
        options = options._replace(loss_dtype=torch.float32)
        loss, stats = blocks.forward(logits, target, 0.25, options)
        expected = reference.forward(logits, target, 0.25, options)
        assert_close(loss, expected[0], "float32")
        assert_close(stats, expected[1], "float32")


@pytest.mark.parametrize("shape", [(40, 300), (40, 50), (40, 5), (3, 50, 8)], ids=str)
def test_large_logits_cost_no_digits(shape):
    logits, target, options = kernel_arguments(Case(shape=shape), torch.float32)
    logits = 3 * logits + 30_000
    actual = forward_and_backward(blocks, logits, target, 0.3, options)
    exact = options._replace(loss_dtype=torch.float64)
    expected = forward_and_backward(reference, logits.double(), target, 0.3, exact)
    for ours, truth in zip(actual, expected, strict=True):
        assert_close(ours, truth.float(), "float32")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_blocks_leave_every_row_of_the_gradient_as_it_is(dtype, reduction, monkeypatch):
    logits, target, options = kernel_arguments(Case(reduction=reduction), dtype)
    set_block_size(monkeypatch, logits.numel())
    *_, expected = forward_and_backward(blocks, logits, target, 0.25, options)
    set_block_size(monkeypatch, 10)
    *_, actual = forward_and_backward(blocks, logits, target, 0.25, options)
    assert_equal(actual, expected)


@pytest.mark.parametrize("soft", [False, True])
def test_a_tensor_larger_than_a_block_equals_the_reference(soft):
    logits, target, options = kernel_arguments(Case(shape=(600, 1000), soft=soft), torch.float32)
    assert logits.numel() > blocks.BLOCK_SIZE
    *_, actual = forward_and_backward(blocks, logits, target, 0.25, options)
    *_, expected = forward_and_backward(reference, logits, target, 0.25, options)
    assert_close(actual, expected, "float32")


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_an_all_ignored_batch_has_gradient_zero_in_blocks(block_size, monkeypatch):
    set_block_size(monkeypatch, block_size)
    logits, target, options = kernel_arguments(Case())
    target = torch.full_like(target, -100)
    loss, _, grad = forward_and_backward(blocks, logits, target, 0.25, options)
    assert loss.isnan()
    assert_equal(grad, torch.zeros_like(logits))


@pytest.mark.parametrize("kernel", [blocks, reference], ids=["blocks", "reference"])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_gradient_has_the_shape_and_dtype_of_the_logits(kernel, block_size, monkeypatch):
    set_block_size(monkeypatch, block_size)
    for case, dtype in product((Case(), Case(soft=True)), (torch.bfloat16, torch.float32)):
        logits, target, options = kernel_arguments(case, dtype)
        logits = logits.t().contiguous().t()
        loss, stats, grad = forward_and_backward(kernel, logits, target, 0.25, options)
        assert (grad.shape, grad.dtype) == (logits.shape, logits.dtype)
        assert (loss.shape, loss.dtype) == ((), dtype)
        assert (stats.shape, stats.dtype) == ((), torch.float32)


@pytest.mark.parametrize("num_classes", [1, 2, 7, 8, 9, 31, 33, 1023, 4097])
def test_the_path_of_blocks_equals_the_path_of_few_logits(num_classes, monkeypatch):
    case = Case(shape=(6, num_classes), weighted=True, ignored=True)
    logits, target, options = kernel_arguments(case)
    *_, expected = forward_and_backward(blocks, logits, target, 0.25, options)
    set_block_size(monkeypatch, 2 * num_classes)
    *_, actual = forward_and_backward(blocks, logits, target, 0.25, options)
    assert_close(actual, expected)


def test_an_unknown_kernel_is_refused():
    with pytest.raises(ValueError, match=r"one of auto, reference, blocks, cpu, triton, got 'gpu'"):
        tampered_cross_entropy(torch.zeros(1, 2), torch.tensor([0]), 0.25, kernel="gpu")


@pytest.mark.parametrize("kernel", ["blocks", "cpu"])
def test_a_kernel_of_cpus_takes_no_logits_of_another_device(kernel):
    logits, target = torch.zeros(1, 2, device="meta"), torch.zeros(1, dtype=int, device="meta")
    with pytest.raises(ValueError, match=f"'{kernel}' takes no logits on meta; use 'auto'"):
        tampered_cross_entropy(logits, target, 0.25, kernel=kernel)


def test_a_kernel_is_described_by_the_word_that_a_run_records(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert describe_kernel("reference", cpu) == describe_kernel("auto", torch.device("meta"))
    assert describe_kernel("reference", cpu) == "reference"
    assert describe_kernel("blocks", cpu) == "blocks"
    monkeypatch.setattr(selection, "native_library", lambda: "a library")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert describe_kernel("auto", cpu) == describe_kernel("cpu", cpu) == "native (AVX512)"
    monkeypatch.setattr(selection, "native_library", lambda: None)
    assert describe_kernel("auto", cpu) == "blocks"
    monkeypatch.setattr(selection, "_is_triton_usable", lambda device: device.type == "cuda")
    assert describe_kernel("auto", gpu) == describe_kernel("triton", gpu) == "triton"


@pytest.mark.parametrize("kernel", ["auto", "reference", "blocks", "cpu"])
@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_kernels_agree_by_name_in_eager_and_compiled_calls(case, kernel):
    logits, target, options = case.make()
    expected = value_and_gradient(tampered_cross_entropy, logits, target, 0.25, **options)
    torch.compiler.reset()
    compiled = torch.compile(tampered_cross_entropy, fullgraph=True, backend="aot_eager")
    for function in (tampered_cross_entropy, compiled):
        actual = value_and_gradient(function, logits, target, 0.25, kernel=kernel, **options)
        for ours, of_default in zip(actual, expected, strict=True):
            assert_close(ours, of_default)


def test_a_named_kernel_computes_the_loss(monkeypatch):
    logits, target, _ = Case().make()
    monkeypatch.setattr(blocks, "forward", None)  # to be called would be an error
    loss = tampered_cross_entropy(logits, target, 0.25, kernel="reference")
    assert_close(loss, torch.nn.functional.cross_entropy(logits, target))


def test_a_dispatch_mode_sees_the_operator_and_not_what_the_kernel_is_made_of():
    logits, target, _ = Case().make()
    names = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            names.append(str(function))
            return function(*args, **(kwargs or {}))

    with Record():
        tampered_cross_entropy(logits, target, 0.25)
    assert "softmax_gradient_tampering.cross_entropy.default" in names
    assert not any("log_softmax" in name for name in names)
