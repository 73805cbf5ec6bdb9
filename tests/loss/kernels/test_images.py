"""Logits of images, (N, C, d1, ...), in the kernels of a CPU: against the reference."""

from dataclasses import replace

import pytest
import torch

from softmax_gradient_tampering import tampered_cross_entropy
from softmax_gradient_tampering.loss.kernels import reference
from softmax_gradient_tampering.loss.kernels.cpu import blocks, native
from softmax_gradient_tampering.loss.kernels.options import Options
from tests.loss.cases import FEW_CASES, OPTION_CASES, Case, assert_close, assert_equal
from tests.loss.peak_memory import peak_memory
from tests.loss.test_native import HALF_TYPES, arguments, forward_and_backward, needs_library

KERNELS = [
    pytest.param(native, marks=needs_library, id="native"),
    pytest.param(blocks, id="blocks"),
]
# One position, fewer than a vector has numbers, about as many, several blocks of an image, several
# images in a block; few classes and many, and so many that no cache holds an image.
SHAPES = (
    *((3, 5, 1), (40, 3, 1, 2), (5, 21, 7), (2, 4, 16), (3, 2, 33), (2, 21, 31, 33)),
    *((1, 2, 2100), (9, 150, 10), (2, 300, 129), (3, 1, 5), (2, 4100, 40), (1, 300, 900)),
)
FEW_OPTIONS = (*FEW_CASES[:-1], Case(soft=True, weighted=True, smoothing=0.1))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_images_of_every_shape_are_as_the_reference_has_them(kernel, shape):
    for case in FEW_OPTIONS:
        logits, target, options = arguments(replace(case, shape=shape))
        actual = forward_and_backward(kernel, logits, target, 0.25, options)
        expected = forward_and_backward(reference, logits, target, 0.25, options)
        for ours, oracle in zip(actual, expected, strict=True):
            assert_close(ours, oracle, "float32")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("case", OPTION_CASES, ids=str)
def test_every_option_of_images_is_as_the_reference_has_it(kernel, case):
    logits, target, options = arguments(replace(case, shape=(3, 5, 4, 9)))
    for alpha in (0.05, 1.0):
        actual = forward_and_backward(kernel, logits, target, alpha, options)
        expected = forward_and_backward(reference, logits, target, alpha, options)
        for ours, oracle in zip(actual, expected, strict=True):
            assert_close(ours, oracle, "float32")


@pytest.mark.parametrize("block_size", [1, 40, 100, 200, 1000])
@pytest.mark.parametrize("shape", [(3, 5, 16), (40, 5)], ids=str)
def test_blocks_of_images_may_be_of_any_size(shape, block_size, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_SIZE", block_size)
    for case in FEW_OPTIONS:
        logits, target, options = arguments(replace(case, shape=shape), torch.float64)
        options = options._replace(loss_dtype=torch.float64)
        target = target.double() if case.soft else target
        for alpha in (0.25, 0.0, torch.tensor(0.25)):
            actual = forward_and_backward(blocks, logits, target, alpha, options)
            expected = forward_and_backward(reference, logits, target, alpha, options)
            for ours, oracle in zip(actual, expected, strict=True):
                assert_close(ours, oracle)


@needs_library
@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 21, 300)], ids=str)
def test_half_images_give_the_float32_numbers_rounded_once(dtype, shape):
    for case in OPTION_CASES:
        logits, target, options = arguments(replace(case, shape=shape), dtype)
        loss, stats, grad = forward_and_backward(native, logits, target, 0.25, options)
        in_float = forward_and_backward(native, logits.float(), target, 0.25, options)
        assert_equal(loss, in_float[0])
        assert_equal(stats, in_float[1])
        assert_equal(grad, in_float[2].to(dtype))


@needs_library
@pytest.mark.parametrize("dtype", [torch.float32, *HALF_TYPES], ids=str)
@pytest.mark.parametrize("shape", [(3, 21, 1030), (900, 20, 5), (5000, 21)], ids=str)
def test_results_of_lanes_do_not_depend_on_the_number_of_threads(dtype, shape):
    case = Case(shape=shape, weighted=True, ignored=True, smoothing=0.1)
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


LAYOUTS = {
    "a part of the classes": lambda z: torch.cat([z, z], dim=1)[:, : z.shape[1]],
    "a part of the images": lambda z: torch.stack([z, -z], dim=1)[:, 0],
    "every second position": lambda z: z.repeat_interleave(2, dim=3)[..., ::2],
    "a part of the positions": lambda z: torch.cat([z, z], dim=3)[..., : z.shape[3]],
    "channels last": lambda z: z.contiguous(memory_format=torch.channels_last),
    "one image, expanded": lambda z: z[:1].expand(len(z), -1, -1, -1),
    "negated": lambda z: torch.complex(z, -z).conj().imag,
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_may_lie_in_memory_as_they_like(kernel, layout):
    logits, target, options = arguments(Case(shape=(3, 5, 6, 7), weighted=True))
    logits = LAYOUTS[layout](logits)
    actual = forward_and_backward(kernel, logits, target, 0.25, options)
    expected = forward_and_backward(kernel, logits.clone().resolve_neg(), target, 0.25, options)
    assert actual[2].is_contiguous()
    for one, two in zip(actual, expected, strict=True):
        assert_close(one, two, "float32")


LARGE, INF, NAN = 3e38, torch.inf, torch.nan
ODD = ([1.0, NAN, 0.0], [1.0, INF, 0.0], [1.0, -INF, 0.0], [-INF, -INF, -INF], [-LARGE, LARGE, 0.0])


@needs_library
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("column", ODD, ids=str)
def test_numbers_that_are_none_stay_in_their_position(column, smoothing):
    logits = torch.zeros(2, 3, 40)
    logits[1, :, 17] = torch.tensor(column)
    for label in range(3):
        target = torch.full((2, 40), label)
        options = Options(None, -100, "none", smoothing, torch.float32)
        actual = forward_and_backward(native, logits, target, 0.25, options)
        expected = forward_and_backward(reference, logits, target, 0.25, options)
        assert_close(actual[0], expected[0], "float32")
        assert_close(actual[2], expected[2], "float32")


@needs_library
def test_a_position_that_is_ignored_has_gradient_zero_whatever_its_logits_are():
    logits, target, options = arguments(Case(shape=(2, 5, 40), ignored=True, smoothing=0.1))
    ignored = target == options.ignore_index
    assert ignored.any()
    logits.movedim(1, -1)[ignored] = NAN
    loss, _, grad = forward_and_backward(native, logits, target, 0.25, options)
    assert loss.isfinite()
    assert (grad.movedim(1, -1)[ignored] == 0).all()
    assert grad.isfinite().all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_pixel_whose_label_is_no_class_is_an_index_error(kernel):
    logits, target, options = arguments(Case(shape=(2, 5, 6, 7), ignored=True))
    target[1, 2, 3], target[1, 5, 6] = 5, 9
    with pytest.raises(IndexError, match=r"Target [59] is out of bounds"):
        kernel.forward(logits, target, 0.25, options)


@pytest.mark.parametrize("layout", ["channels last", "contiguous"])
@pytest.mark.parametrize("kernel", ["auto", "blocks"])
def test_the_gradient_lies_in_memory_as_the_images_do(layout, kernel):
    logits, target, _ = Case(shape=(2, 5, 6, 7)).make(torch.float32)
    if layout == "channels last":
        logits = logits.contiguous(memory_format=torch.channels_last)
    logits.requires_grad_()
    images = logits * 1  # a leaf's gradient is laid out as the leaf
    (grad,) = torch.autograd.grad(
        tampered_cross_entropy(images, target, 0.25, kernel=kernel), images
    )
    assert grad.stride() == logits.stride()


@needs_library
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"reduction": "sum"}], ids=str)
@pytest.mark.parametrize(
    ("shape", "memory_format"),
    [
        ((4, 2, 64, 64), torch.contiguous_format),
        ((2, 21, 64, 64), torch.contiguous_format),
        ((2, 21, 64, 64), torch.channels_last),
        ((4096, 21), torch.contiguous_format),
        ((500, 1000), torch.contiguous_format),
    ],
    ids=str,
)
def test_nothing_of_the_size_of_the_logits_is_made_but_the_gradient(shape, memory_format, options):
    logits, target, _ = Case(shape=shape).make(torch.float32)
    logits = logits.contiguous(memory_format=memory_format).requires_grad_()

    def step() -> None:
        logits.grad = None
        tampered_cross_entropy(logits, target, 0.25, **options).backward()

    assert peak_memory(step) <= logits.nbytes + 4096
