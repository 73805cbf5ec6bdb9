"""The compiled rows against the reference, and their own promises."""

from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from softmax_gradient_tampering import tampered_cross_entropy
from softmax_gradient_tampering.loss.kernels import reference
from softmax_gradient_tampering.loss.kernels.cpu import kernel as cpu
from softmax_gradient_tampering.loss.kernels.cpu import native, native_library
from softmax_gradient_tampering.loss.kernels.options import Options
from tests.loss.cases import (
    ALPHAS,
    FEW_CASES,
    OPTION_CASES,
    Case,
    assert_close,
    assert_equal,
    value_and_gradient,
)

needs_library = pytest.mark.skipif(
    native_library.native_library() is None,
    reason="needs Linux, g++ and a processor with AVX2",
)
HALF_TYPES = (torch.bfloat16, torch.float16)
# Around the widths of vectors and of their transposition, where rows fill vectors of their own,
# where fewer rows are taken at once, and around the size of a chunk.
NUM_CLASSES = (
    *(1, 2, 4, 5, 7, 8, 9, 16, 17, 21, 31, 33, 47, 48, 49, 63, 64, 200),
    *(511, 513, 1000, 2047, 2048, 2049, 5000, 9000),
)


def arguments(case, dtype=torch.float32, **changes):
    logits, target, options = case.make(dtype, **changes)
    if case.soft:
        target = target.float()  # in half types it goes to the blocks
    return logits, target, Options(**options, loss_dtype=torch.float32)


def forward_and_backward(kernel, logits, target, alpha, options):
    loss, stats = kernel.forward(logits, target, alpha, options)
    incoming = 1 + torch.arange(loss.numel(), dtype=loss.dtype).reshape(loss.shape) % 8 / 7
    return loss, stats, kernel.backward(incoming, logits, target, alpha, stats, options)


@pytest.fixture
def anew():
    """The library is loaded again, and after the test once more."""
    native_library.native_library.cache_clear()
    yield
    native_library.native_library.cache_clear()


@needs_library
@pytest.mark.parametrize("case", OPTION_CASES, ids=str)
def test_every_option_is_as_the_reference_has_it(case):
    logits, target, options = arguments(case)
    for alpha in ALPHAS:
        assert native.takes(logits, target, alpha, options)
        actual = forward_and_backward(native, logits, target, alpha, options)
        expected = forward_and_backward(reference, logits, target, alpha, options)
        for ours, oracle in zip(actual, expected, strict=True):
            assert_close(ours, oracle, "float32")


@needs_library
@pytest.mark.parametrize("num_classes", NUM_CLASSES)
def test_every_number_of_classes_is_as_the_reference_has_it(num_classes):
    for case in FEW_CASES[:-1]:
        logits, target, options = arguments(replace(case, shape=(21, num_classes)))
        actual = forward_and_backward(native, logits, target, 0.25, options)
        expected = forward_and_backward(reference, logits, target, 0.25, options)
        for ours, oracle in zip(actual, expected, strict=True):
            assert_close(ours, oracle, "float32")


@needs_library
@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
@pytest.mark.parametrize("num_classes", [5, 64, 3000])
def test_half_logits_give_the_float32_numbers_rounded_once(dtype, num_classes):
    for case in OPTION_CASES:
        logits, target, options = arguments(replace(case, shape=(4, num_classes)), dtype)
        loss, stats, grad = forward_and_backward(native, logits, target, 0.25, options)
        in_float = forward_and_backward(native, logits.float(), target, 0.25, options)
        assert_equal(loss, in_float[0])
        assert_equal(stats, in_float[1])
        assert_equal(grad, in_float[2].to(dtype))


@needs_library
@pytest.mark.parametrize("dtype", [torch.float32, *HALF_TYPES], ids=str)
def test_results_do_not_depend_on_the_number_of_threads(dtype):
    case = Case(shape=(101, 1000), weighted=True, ignored=True, smoothing=0.1)
    logits, target, options = arguments(case, dtype)
    before = torch.get_num_threads()
    results = []
    try:
        for num_threads in (1, 2, 3):
            torch.set_num_threads(num_threads)
            results.append(forward_and_backward(native, logits, target, 0.25, options))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert_equal(one, two)


@needs_library
@pytest.mark.parametrize("alpha", [0.01, 0.25, 1.0])
def test_large_logits_are_as_accurate_as_torch_says(alpha):
    generator = torch.Generator().manual_seed(0)
    logits = torch.rand(16, 3000, generator=generator, dtype=torch.float64) * 200 - 100
    logits = logits.float()
    target = torch.randint(3000, (16,), generator=generator)
    value, grad = value_and_gradient(tampered_cross_entropy, logits, target, alpha)
    assert_close(value.double(), F.cross_entropy(logits.double(), target), "float32")
    _, truth = value_and_gradient(tampered_cross_entropy, logits.double(), target, alpha)
    ulp = torch.finfo(torch.float32).eps * truth.abs().max()
    assert (grad.double() - truth).abs().max() <= ulp


LARGE, INF, NAN = 3e38, torch.inf, torch.nan
ODD_ROWS = (
    [1.0, NAN, 0.0, 2.0],
    [1.0, INF, 0.0, 2.0],
    [1.0, -INF, 0.0, 2.0],
    [-INF, 3.0, -INF, -INF],
    [-INF, -INF, -INF, -INF],
    [-LARGE, LARGE, 0.0, 0.0],
    [-90.0, 0.0, -87.5, -1000.0],
)


@needs_library
@pytest.mark.parametrize("row", ODD_ROWS, ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("num_classes", [4, 40])
def test_numbers_that_are_none_come_out_as_in_the_reference(row, smoothing, num_classes):
    logits = torch.tensor([row * (num_classes // 4), [0.0] * num_classes])
    for label in range(4):
        target = torch.tensor([label, 0])
        options = Options(None, -100, "none", smoothing, torch.float32)
        loss, _, grad = forward_and_backward(native, logits, target, 0.25, options)
        expected = forward_and_backward(reference, logits, target, 0.25, options)
        assert_close(loss, expected[0], "float32")
        assert_close(grad, expected[2], "float32")


@needs_library
def test_probabilities_below_the_smallest_number_are_zero():
    logits = torch.tensor([[0.0, -1000.0, -INF]])
    _, grad = value_and_gradient(tampered_cross_entropy, logits, torch.tensor([0]), 1.0)
    assert_equal(grad, torch.zeros(1, 3))


@needs_library
@pytest.mark.parametrize(
    "view",
    [
        lambda z: z.t().contiguous().t(),
        lambda z: torch.stack([z, -z], dim=1)[:, 0],
        lambda z: z[:1].expand(len(z), -1),
        lambda z: torch.complex(z, -z).conj().imag,  # torch keeps a minus sign as a promise
    ],
    ids=["transposed", "strided", "expanded", "negated"],
)
def test_logits_may_lie_in_memory_as_they_like(view):
    logits, target, options = arguments(Case(shape=(7, 40)))
    logits = view(logits)
    actual = forward_and_backward(native, logits, target, 0.25, options)
    expected = forward_and_backward(native, logits.clone().resolve_neg(), target, 0.25, options)
    for one, two in zip(actual, expected, strict=True):
        assert_equal(one, two)


@needs_library
def test_the_incoming_gradient_may_be_expanded_or_nothing():
    logits, target, options = arguments(Case(reduction="none"))
    _, stats = native.forward(logits, target, 0.25, options)
    ones = torch.ones(len(logits))
    expected = native.backward(ones, logits, target, 0.25, stats, options)
    of_one = torch.ones(()).expand(len(logits))
    assert_equal(native.backward(of_one, logits, target, 0.25, stats, options), expected)
    nothing = torch._efficientzerotensor(len(logits))
    zeros = native.backward(nothing, logits, target, 0.25, stats, options)
    assert_equal(zeros, torch.zeros_like(logits))


@needs_library
@pytest.mark.parametrize("label", [-1, 5, 2**40])
def test_a_label_that_is_no_class_is_an_index_error(label):
    logits, target, options = arguments(Case(ignored=True))
    target[3] = label
    with pytest.raises(IndexError, match=f"Target {label} is out of bounds"):
        native.forward(logits, target, 0.25, options)


@needs_library
def test_defaults_of_torch_for_new_tensors_do_not_matter(anew):
    logits, target, options = arguments(Case())
    expected = forward_and_backward(native, logits, target, 0.25, options)
    native_library.native_library.cache_clear()  # it is loaded below
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert native_library.native_library() is not None
            loss, stats = native.forward(logits, target, 0.25, options)
            incoming = torch.ones((), device="cpu")
            grad = native.backward(incoming, logits, target, 0.25, stats, options)
    finally:
        torch.set_default_dtype(torch.float32)
    for one, two in zip((loss, stats, grad), expected, strict=True):
        assert_equal(one, two)


@needs_library
def test_the_library_is_loaded_under_autocast(anew):
    with torch.autocast("cpu"):
        assert native_library.native_library() is not None


def test_what_the_library_does_not_take_goes_to_the_blocks(monkeypatch):
    monkeypatch.setattr(native, "forward", None)  # to be called would be an error
    for case, dtype, alpha in (
        (Case(), torch.float64, 0.25),
        (Case(), torch.float32, 0.0),
        (Case(soft=True), torch.bfloat16, 0.25),
        (Case(), torch.float32, torch.tensor(0.25)),
    ):
        logits, target, options = case.make(dtype)
        options = Options(**options, loss_dtype=dtype)
        assert not native.takes(logits, target, alpha, options)
        cpu.forward(logits, target, alpha, options)
    empty = torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)
    assert tampered_cross_entropy(*empty, 0.25).isnan()


@needs_library
@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_both_instruction_sets_agree_with_the_reference(capability, anew, monkeypatch):
    if capability == "AVX512" != torch.backends.cpu.get_cpu_capability():
        pytest.skip("needs a processor with AVX-512")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert native_library.native_library() is not None
    shapes = ((5, 300), (40, 21), (3, 5, 40), (20, 50))
    for case, dtype, shape in product(FEW_CASES[:-1], (torch.float32, *HALF_TYPES), shapes):
        logits, target, options = arguments(replace(case, shape=shape), dtype)
        actual = forward_and_backward(native, logits, target, 0.25, options)
        expected = forward_and_backward(reference, logits.float(), target, 0.25, options)
        assert_close(actual[0], expected[0], "float32")
        if dtype is torch.float32:
            assert_close(actual[2], expected[2], "float32")
