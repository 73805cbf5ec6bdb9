"""What only a GPU can show: CUDA graphs, no synchronisation, assertions, compiled calls, memory.

`test_triton.py` holds the values and gradients, on a GPU as in the interpreter. These tests
pass over themselves where there is no GPU, and have not yet been run on one.
"""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from softmax_gradient_tampering import TamperedCrossEntropyLoss, tampered_cross_entropy
from tests.loss.cases import (
    FEW_CASES,
    OPTION_CASES,
    TOLERANCES,
    Case,
    assert_close,
    assert_equal,
    value_and_gradient,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def on_gpu(case, dtype=torch.float32):
    logits, target, options = case.make(dtype)
    weight = options["weight"]
    options["weight"] = None if weight is None else weight.cuda()
    return logits.cuda(), target.cuda(), options


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", OPTION_CASES, ids=str)
def test_a_gpu_gives_what_a_cpu_gives(case, dtype):
    logits, target, options = on_gpu(case, dtype)
    actual = value_and_gradient(tampered_cross_entropy, logits, target, 0.25, **options)
    logits, target, options = case.make(dtype)
    exact = {
        name: value.double() if isinstance(value, torch.Tensor) else value
        for name, value in options.items()
    }
    target = target.double() if case.soft else target
    expected = value_and_gradient(tampered_cross_entropy, logits.double(), target, 0.25, **exact)
    for gpu, cpu in zip(actual, expected, strict=True):
        # One rounding to the dtype, of numbers computed as the table says.
        rtol, atol = TOLERANCES["float32"]
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(
            gpu.cpu().double(), cpu, rtol=rtol + eps, atol=atol, equal_nan=True
        )


def test_the_default_kernel_of_a_gpu_is_triton():
    logits, target, _ = on_gpu(Case())
    expected = value_and_gradient(tampered_cross_entropy, logits, target, 0.25, kernel="triton")
    actual = value_and_gradient(tampered_cross_entropy, logits, target, 0.25)
    for ours, of_triton in zip(actual, expected, strict=True):
        assert_equal(ours, of_triton)


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_nothing_is_read_back_from_the_device(case):
    logits, target, options = on_gpu(case)
    alpha = torch.tensor(0.25, device="cuda")
    value_and_gradient(tampered_cross_entropy, logits, target, alpha, **options)  # compiles
    leaf = logits.requires_grad_()
    torch.cuda.set_sync_debug_mode("error")
    try:
        tampered_cross_entropy(leaf, target, alpha, **options).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_a_cuda_graph_replays_with_other_logits_targets_and_alpha(case):
    logits, target, options = on_gpu(case)
    alpha = torch.tensor(0.25, device="cuda")
    leaf = logits.clone().requires_grad_()

    def step():
        loss = tampered_cross_entropy(leaf, target, alpha, **options).sum()
        return loss, torch.autograd.grad(loss, leaf)[0]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        leaf.copy_(logits.flip(0))
        target.copy_(target.flip(0))
        alpha.fill_(0.75)
    graph.replay()
    for replayed, eager in zip(captured, step(), strict=True):
        assert_equal(replayed, eager)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_compiled_model_and_loss_equal_eager(case, mode):
    logits, target, options = on_gpu(case)
    loss_fn = TamperedCrossEntropyLoss(0.25, **options)
    torch.compiler.reset()
    compiled = torch.compile(lambda z, t: loss_fn(z * 2, t), fullgraph=True, mode=mode)
    expected = value_and_gradient(lambda z, t: loss_fn(z * 2, t), logits, target)
    for _ in range(3):  # graphs are captured in the second call and replayed from the third
        actual = value_and_gradient(compiled, logits, target)
        for ours, eager in zip(actual, expected, strict=True):
            assert_close(ours, eager, "float32")


def test_an_alpha_on_the_device_neither_recompiles_nor_changes_by_its_value():
    logits, target, _ = on_gpu(Case())
    compiled = torch.compile(tampered_cross_entropy, fullgraph=True)
    value_and_gradient(compiled, logits, target, torch.tensor(0.25, device="cuda"))
    with torch.compiler.set_stance("fail_on_recompile"):
        alpha = torch.tensor(0.75, device="cuda")
        actual = value_and_gradient(compiled, logits, target, alpha)
    expected = value_and_gradient(tampered_cross_entropy, logits, target, 0.75)
    for ours, eager in zip(actual, expected, strict=True):
        assert_close(ours, eager, "float32")


@pytest.mark.skipif(torch.version.hip is not None, reason="Triton asserts on NVIDIA's alone")
@pytest.mark.parametrize("call", ["loss", "torch.compile(loss)"])
@pytest.mark.parametrize("label", [3, -1, 2**40])
def test_a_label_beyond_the_classes_is_a_device_assertion(label, call):
    code = f"""
import torch
from softmax_gradient_tampering import tampered_cross_entropy
def loss(z, t):
    return tampered_cross_entropy(z, t, 0.25)
z = torch.zeros(4, 3, device="cuda", requires_grad=True)
{call}(z, torch.tensor([0, 1, 2, 0], device="cuda")).item()
print("right labels pass")
print("loss", {call}(z, torch.tensor([0, 1, 2, {label}], device="cuda")).item())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    assert "right labels pass" in done.stdout
    assert "loss" not in done.stdout
    assert "device-side assert" in done.stderr


def test_results_repeat_bitwise():
    logits, target, options = on_gpu(Case((512, 5000), weighted=True, smoothing=0.1))
    expected = value_and_gradient(tampered_cross_entropy, logits, target, 0.25, **options)
    for _ in range(5):
        actual = value_and_gradient(tampered_cross_entropy, logits, target, 0.25, **options)
        for again, first in zip(actual, expected, strict=True):
            assert_equal(again, first)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_peak_memory_is_the_logits_and_the_gradient(dtype):
    logits = torch.randn(512, 32000, device="cuda", dtype=dtype, requires_grad=True)
    target = torch.randint(32000, (512,), device="cuda")
    tampered_cross_entropy(logits, target, 0.25).backward()
    logits.grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    tampered_cross_entropy(logits, target, 0.25).backward()
    size = logits.numel() * logits.element_size()
    assert torch.cuda.max_memory_allocated() - before < 1.05 * size


def test_offsets_are_of_64_bits():
    num_rows, num_classes = 2**16 + 1, 2**15 + 1  # the last rows lie beyond 2^31 logits
    free, _ = torch.cuda.mem_get_info()
    if free < 3 * 2 * num_rows * num_classes:
        pytest.skip("needs 13 GB of free memory")
    logits = torch.zeros(num_rows, num_classes, device="cuda", dtype=torch.bfloat16)
    logits[-1] = torch.randn(num_classes, device="cuda")
    target = torch.zeros(num_rows, device="cuda", dtype=torch.int64)
    leaf = logits.requires_grad_()
    loss = tampered_cross_entropy(leaf, target, 0.25, reduction="none")
    loss.backward(torch.ones_like(loss))
    expected = value_and_gradient(
        tampered_cross_entropy, logits[-1:], target[-1:], 0.25, reduction="none"
    )
    assert_equal(loss[-1:].detach(), expected[0])
    assert_equal(leaf.grad[-1:], expected[1])


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_current_device_may_be_another():
    logits, target, _ = on_gpu(Case())
    loss = tampered_cross_entropy(logits.to("cuda:1"), target.to("cuda:1"), 0.25)
    assert_close(loss.cpu(), F.cross_entropy(logits, target).cpu(), "float32")
