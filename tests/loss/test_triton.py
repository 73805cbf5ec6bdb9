"""The Triton kernel against a float64 truth: on a GPU, or in Triton's interpreter on a CPU.

The interpreter has to be asked for before Triton is imported: `test_triton_interpreter.py` runs
this file in a process of its own. It covers all dtypes of the kernel. Of a GPU's rounding it says
nothing: its exp2 and log2 are numpy's, where those of a GPU are approximate, and from float32 to
bfloat16 it truncates. The tests that are about rounding are marked so: a GPU has to run them.
"""

from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from softmax_gradient_tampering import tampered_cross_entropy
from softmax_gradient_tampering.loss.kernels import reference
from softmax_gradient_tampering.loss.kernels.options import Options
from tests.loss.cases import (
    ALPHAS,
    CASES,
    FEW_CASES,
    OPTION_CASES,
    REDUCTIONS,
    SMOOTHINGS,
    Case,
    assert_close,
    assert_equal,
    surrogate,
    value_and_gradient,
)
from tests.loss.test_precision import double, errors_in_ulps

triton = pytest.importorskip("triton")
HAS_GPU = torch.cuda.is_available()
INTERPRETS = triton.knobs.runtime.interpret
DEVICE = "cpu" if INTERPRETS else "cuda"
pytestmark = pytest.mark.skipif(
    not (HAS_GPU or INTERPRETS), reason="needs a GPU or TRITON_INTERPRET=1"
)
HALF_TYPES = (torch.float16, torch.bfloat16)
of_rounding = pytest.mark.rounding
# Rows of one block, of several, and, below 1024 classes, several rows in a block.
BLOCK_CLASSES = (2, 4096)


def on_device(case, dtype=torch.float32, **kwargs):
    """Arguments of a case on the device of the kernel."""
    logits, target, options = case.make(dtype, **kwargs)
    weight = options["weight"]
    options["weight"] = None if weight is None else weight.to(DEVICE)
    return logits.to(DEVICE), target.to(DEVICE), options


def by_triton(logits, target, alpha, **options):
    return tampered_cross_entropy(logits, target, alpha, **options, kernel="triton")


def truth(logits, target, alpha, **options):
    """Value and gradient of the kernel's arguments, in float64 by torch alone."""
    options = {name: double(option) for name, option in options.items()}
    logits, target = double(logits), double(target)
    loss, _ = value_and_gradient(F.cross_entropy, logits, target, **options)
    _, grad = value_and_gradient(surrogate, logits, target, alpha, **options)
    return loss, grad


def assert_true(logits, target, alpha, **options):
    """Value and gradient of the kernel are the true ones; nan and inf included."""
    actual = value_and_gradient(by_triton, logits, target, alpha, **options)
    for ours, true in zip(actual, truth(logits, target, alpha, **options), strict=True):
        assert_close(ours.double(), true, "float32")
    return actual


@pytest.fixture(params=BLOCK_CLASSES)
def block_classes(request, monkeypatch):
    from softmax_gradient_tampering.loss.kernels.triton import kernel

    monkeypatch.setattr(kernel, "MAX_BLOCK_CLASSES", request.param)
    monkeypatch.setattr(kernel, "MIN_BLOCK_SIZE", min(kernel.MIN_BLOCK_SIZE, 4 * request.param))
    monkeypatch.setattr(kernel, "plan_of", kernel.plan_of.__wrapped__)
    return request.param


# Every seventh of the cases: each shape with some of all options, which are all in the next test.
@pytest.mark.parametrize("case", CASES[::7], ids=str)
def test_value_and_gradient_are_true(case):
    logits, target, options = on_device(case)
    for alpha in ALPHAS:
        assert_true(logits, target, alpha, **options)


@pytest.mark.parametrize("case", OPTION_CASES, ids=str)
def test_value_and_gradient_are_true_in_blocks(case, block_classes):
    logits, target, options = on_device(case)
    assert_true(logits, target, 0.25, **options)


@pytest.mark.parametrize("case", [Case((3, 5000)), Case((3, 5000), soft=True)], ids=str)
def test_rows_longer_than_a_block_are_true(case):
    assert_true(*on_device(case)[:2], 0.25)


def test_rows_that_do_not_fill_the_last_block_are_true():
    assert_true(*on_device(Case((130, 11)))[:2], 0.25)


@pytest.mark.parametrize("case", OPTION_CASES[::11], ids=str)
@pytest.mark.parametrize(
    "layout",
    [
        lambda tensor: tensor,
        lambda tensor: tensor.mT.contiguous().mT,
        lambda tensor: tensor.movedim(1, -1).contiguous().movedim(-1, 1),
        lambda tensor: torch.cat((tensor, tensor), 1)[:, : tensor.shape[1]],
    ],
    ids=["contiguous", "transposed", "channels last", "images apart"],
)
def test_images_are_true_in_any_layout(layout, case):
    """Of 10 positions: blocks that they do not fill, and vectors of two."""
    logits, target, options = on_device(replace(case, shape=(2, 5, 2, 5)))
    assert_true(layout(logits), layout(target) if case.soft else target, 0.25, **options)


def test_images_of_several_blocks_of_positions_and_classes_are_true():
    assert_true(*on_device(Case((2, 20, 300)))[:2], 0.25)


@pytest.mark.skipif(not INTERPRETS, reason="the size of a group is compiled in")
@pytest.mark.parametrize("num_rows", [1, 2, 3, 4, 5, 9])
def test_sums_of_any_number_of_groups_are_true(num_rows, monkeypatch):
    """A block of one row, and groups of two blocks: up to five of them, two at a time."""
    from softmax_gradient_tampering.loss.kernels.triton import kernel, sums

    monkeypatch.setattr(sums, "GROUP", triton.language.constexpr(2))
    monkeypatch.setattr(kernel, "MIN_BLOCK_SIZE", 1)
    monkeypatch.setattr(kernel, "plan_of", kernel.plan_of.__wrapped__)
    for reduction in ("mean", "sum"):
        case = Case((num_rows, 3), weighted=True, reduction=reduction)
        logits, target, options = on_device(case)
        assert_true(logits, target, 0.25, **options)


@of_rounding
@pytest.mark.parametrize("dtype", [*HALF_TYPES, torch.float32], ids=str)
@pytest.mark.parametrize(
    "case", [*FEW_CASES[::3], Case((8, 1000)), Case((8, 100), soft=True, smoothing=0.1)], ids=str
)
def test_largest_errors_are_at_most_those_of_torch_plus_one_ulp(case, dtype):
    ours, torchs = [], []
    for seed, scale, alpha in product(range(2), (1.0, 30.0), (0.01, 0.25, 1.0)):
        arguments = on_device(case, dtype, seed=seed, scale=scale)
        pair = []
        for value_fn, grad_fn in (
            (lambda z, t, a=alpha, **o: by_triton(z, t, a, **o),) * 2,
            (F.cross_entropy, lambda z, t, a=alpha, **o: surrogate(z, t, a, **o)),
        ):
            of_value = errors_in_ulps(value_fn, F.cross_entropy, *arguments)[0]
            exact = lambda z, t, a=alpha, **o: surrogate(z, t, a, **o)  # noqa: E731
            pair.append((of_value, errors_in_ulps(grad_fn, exact, *arguments)[1]))
        ours.append(pair[0])
        torchs.append(pair[1])
    for of_ours, of_torchs in zip(zip(*ours, strict=True), zip(*torchs, strict=True), strict=True):
        assert max(of_ours) <= max(of_torchs) + 1


@of_rounding
def test_a_common_shift_of_large_logits_costs_no_precision():
    logits, target, _ = on_device(Case((8, 100), smoothing=0.1))
    logits = logits.round(decimals=1)
    for shift in (64.0, -512.0):
        shifted = logits.mul(16).round().div(16) + shift  # both sums are exact
        ours = value_and_gradient(by_triton, shifted, target, 0.05, label_smoothing=0.1)
        true = truth(shifted, target, 0.05, label_smoothing=0.1)
        for actual, expected in zip(ours, true, strict=True):
            assert_close(actual.double(), expected, "float32")


@pytest.mark.parametrize("alpha", [0.0, *ALPHAS])
def test_alpha_as_a_tensor_equals_the_number(alpha):
    logits, target, options = on_device(Case(weighted=True, smoothing=0.1))
    expected = value_and_gradient(by_triton, logits, target, alpha, **options)
    for tensor in (torch.tensor(alpha), torch.tensor(alpha, dtype=torch.float64)):
        actual = value_and_gradient(by_triton, logits, target, tensor.to(DEVICE), **options)
        for ours, of_number in zip(actual, expected, strict=True):
            assert_equal(ours, of_number)


@pytest.mark.parametrize("as_pointer", [False, True], ids=["number", "pointer"])
@pytest.mark.parametrize("case", [c for c in FEW_CASES if len(c.shape) == 2], ids=str)
def test_kernel_functions_are_those_of_the_reference(case, as_pointer):
    from softmax_gradient_tampering.loss.kernels.triton import kernel

    logits, target, options = on_device(case)
    options = Options(**options, loss_dtype=torch.float32)
    for number in (0.0, 0.25):
        alpha = torch.tensor(number, device=DEVICE) if as_pointer else number
        if as_pointer and DEVICE == "cpu":  # a CPU tensor is read on the host: go below that
            alpha = _Unread(alpha)
        results = []
        for module in (kernel, reference):
            exponent = alpha if module is kernel else number
            loss, stats = module.forward(logits, target, exponent, options)
            incoming = (1 + torch.arange(loss.numel()) / 7).reshape(loss.shape).to(DEVICE)
            grad = module.backward(incoming, logits, target, exponent, stats, options)
            assert stats.shape == module.stats_shape(logits, target, options)
            results.append((loss, grad))
        for ours, oracle in zip(*results, strict=True):
            assert_close(ours, oracle, "float32")


class _Unread(torch.Tensor):
    """A CPU tensor that looks like one of a GPU to who asks for its device."""

    @staticmethod
    def __new__(cls, tensor):
        return tensor.as_subclass(cls)

    @property
    def device(self):
        return torch.device("cuda")

    def to(self, *args):
        return self.as_subclass(torch.Tensor)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_minus_inf_logits_give_what_torch_gives(reduction, smoothing, block_classes):
    logits, target, options = on_device(Case(reduction=reduction, smoothing=smoothing))
    logits[:, 0] = -torch.inf  # at times the whole first block
    logits[0, :3] = -torch.inf
    for alpha in (0.25, 1.5):
        assert_true(logits, target, alpha, **options)
        assert_true(logits, target.clamp(min=3), alpha, **options)


def test_alpha_zero_is_uniform_over_the_classes_above_minus_inf(block_classes):
    logits, target, _ = on_device(Case())
    logits[:, 0] = -torch.inf
    target = target.clamp(min=1)
    _, grad = value_and_gradient(by_triton, logits, target, 0.0)
    uniform = torch.tensor([0, 1, 1, 1, 1], device=DEVICE) / 4
    assert_close(grad, (uniform - F.one_hot(target, 5)) / 7, "float32")


@pytest.mark.parametrize("value", [torch.nan, torch.inf], ids=str)
@pytest.mark.parametrize("case", [Case(), Case(smoothing=0.1), Case(soft=True)], ids=str)
def test_nan_and_inf_logits_make_their_row_nan_and_no_other(case, value, block_classes):
    logits, target, options = on_device(case)
    logits[2, 1] = value
    options["reduction"] = "none"
    loss, grad = assert_true(logits, target, 0.25, **options)
    assert loss.isnan().nonzero().flatten().tolist() == [2]
    assert grad.isnan().all(1).nonzero().flatten().tolist() == [2]


def test_a_row_of_minus_inf_is_nan(block_classes):
    logits, target, options = on_device(Case(reduction="none"))
    logits[2] = -torch.inf
    loss, grad = assert_true(logits, target, 0.25, **options)
    assert loss.isnan().tolist() == grad.isnan().all(1).tolist() == [i == 2 for i in range(7)]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_an_all_ignored_batch_gives_what_torch_gives(smoothing, weighted, reduction):
    case = Case(weighted=weighted, reduction=reduction, smoothing=smoothing)
    logits, target, options = on_device(case)
    _, grad = assert_true(logits, torch.full_like(target, -100), 0.25, **options)
    assert_equal(grad, torch.zeros_like(grad))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(0, 5), (0, 5, 3), (2, 5, 0)], ids=str)
@pytest.mark.parametrize("soft", [False, True])
def test_an_empty_batch_gives_what_torch_gives(soft, shape, reduction):
    logits, target, options = on_device(Case(shape, soft=soft, reduction=reduction))
    assert_true(logits, target, 0.25, **options)


@pytest.mark.parametrize(
    "layout",
    [
        lambda tensor: tensor.t().contiguous().t(),
        lambda tensor: tensor.repeat_interleave(2, dim=1)[:, ::2],
        lambda tensor: torch.cat((tensor, tensor), 1)[:, : tensor.shape[1]],
        lambda tensor: tensor[:1].expand_as(tensor),
    ],
    ids=["transposed", "strided", "rows apart", "expanded"],
)
@pytest.mark.parametrize("case", [Case(), Case(smoothing=0.1), Case(soft=True)], ids=str)
def test_layout_of_the_input_changes_nothing(case, layout):
    logits, target, _ = on_device(case)
    logits, targets = layout(logits), (target, layout(target) if case.soft else target)
    for of_any_layout in targets:
        arguments = of_any_layout, 0.25
        leaf = logits.detach().requires_grad_()
        by_triton(leaf, *arguments).backward()
        expected = value_and_gradient(by_triton, logits.contiguous(), *arguments)[1]
        if INTERPRETS:
            assert_equal(leaf.grad, expected)
        else:  # of other strides a GPU's compiler makes another kernel, which fuses other products
            assert_close(leaf.grad, expected, "float32")


@pytest.mark.parametrize("case", [Case(reduction="none"), Case(soft=True, reduction="none")])
def test_a_row_does_not_depend_on_the_others(case):
    logits, target, options = on_device(case)
    expected = value_and_gradient(by_triton, logits, target, 0.25, **options)
    actual = value_and_gradient(by_triton, logits[:3], target[:3], 0.25, **options)
    for few, many in zip(actual, expected, strict=True):
        assert_equal(few, many[:3])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32], ids=str)
def test_targets_of_any_integer_dtype_equal_those_of_int64(dtype):
    logits, target, options = on_device(Case(ignored=True, weighted=True))
    expected = value_and_gradient(by_triton, logits, target, 0.25, **options)
    actual = value_and_gradient(by_triton, logits, target.to(dtype), 0.25, **options)
    for ours, of_int64 in zip(actual, expected, strict=True):
        assert_equal(ours, of_int64)


@pytest.mark.parametrize("dtype", [*HALF_TYPES, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_dtypes_and_shapes_are_those_of_torch(case, dtype):
    logits, target, options = on_device(case, dtype)
    actual = value_and_gradient(by_triton, logits, target, 0.25, **options)
    expected = value_and_gradient(F.cross_entropy, logits, target, **options)
    assert [(t.shape, t.dtype) for t in actual] == [(t.shape, t.dtype) for t in expected]


def test_float64_is_computed_in_float64():
    logits, target, options = on_device(Case(), torch.float64)
    actual = value_and_gradient(by_triton, logits, target, 0.25, **options)
    for ours, true in zip(actual, truth(logits, target, 0.25, **options), strict=True):
        assert_close(ours, true)


@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_second_derivative_is_that_of_the_loss_at_alpha_z(case):
    logits, target, options = on_device(case)
    products = []
    for loss_fn in (by_triton, surrogate):
        leaf = logits.clone().requires_grad_()
        loss = loss_fn(leaf, target, 0.25, **options).sum()
        (first,) = torch.autograd.grad(loss, leaf, create_graph=True)
        products.append(torch.autograd.grad(first, leaf, logits)[0])
    assert_close(*products, "float32")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("case", FEW_CASES, ids=str)
def test_compiled_function_equals_eager(case, dtype):
    logits, target, options = on_device(case, dtype)
    torch.compiler.reset()
    compiled = torch.compile(by_triton, fullgraph=True, backend="aot_eager")
    actual = value_and_gradient(compiled, logits, target, 0.25, **options)
    expected = value_and_gradient(by_triton, logits, target, 0.25, **options)
    for ours, eager in zip(actual, expected, strict=True):
        assert_equal(ours, eager)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("case", [c for c in FEW_CASES if len(c.shape) == 2], ids=str)
def test_operators_pass_opcheck(case, dtype):
    operators = torch.ops.softmax_gradient_tampering
    logits, target, options = on_device(case, dtype)
    arguments = target, 0.25, None, *options.values(), dtype, "triton"
    torch.library.opcheck(operators.cross_entropy.default, (logits, *arguments))
    loss, stats = operators.cross_entropy(logits, *arguments)
    torch.library.opcheck(
        operators.cross_entropy_backward.default,
        (torch.ones_like(loss), logits, stats, *arguments),
    )


@pytest.mark.skipif(not INTERPRETS, reason="on a GPU this is a device assertion: test_cuda.py")
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("label", [5, -1, 2**40])
def test_a_label_beyond_the_classes_never_gives_a_number(label, smoothing):
    logits, target, options = on_device(Case(reduction="none", smoothing=smoothing))
    target[2] = label
    loss, grad = value_and_gradient(by_triton, logits, target, 0.25, **options)
    assert loss.isnan().tolist() == grad.isnan().any(1).tolist() == [i == 2 for i in range(7)]
