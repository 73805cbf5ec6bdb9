"""The Triton kernels compile for GPUs that are not here, and what comes out is what was meant.

Triton's compiler takes a target; the arguments are those of a real launch, recorded. Seen are the
registers and the shared memory, that nothing is spilled, and the width of loads and stores.
"""

import math
import re
import subprocess
from itertools import product
from typing import Any, NamedTuple

import pytest
import torch

triton = pytest.importorskip("triton")
pytest.importorskip("triton.backends.nvidia", reason="needs Triton's compiler for NVIDIA's")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from softmax_gradient_tampering.loss.kernels.options import Options  # noqa: E402
from softmax_gradient_tampering.loss.kernels.triton import fused, kernel, passes  # noqa: E402
from softmax_gradient_tampering.loss.kernels.triton.launch import Launcher  # noqa: E402

pytestmark = pytest.mark.skipif(
    triton.knobs.runtime.interpret, reason="the interpreter compiles nothing"
)
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
DTYPES |= {"i64": torch.int64, "i32": torch.int32, "fp64": torch.float64}
TRITON_NAMES = {dtype: name for name, dtype in DTYPES.items()}
TARGET_KINDS = ("one-hot", "soft", "smoothed", "weighted", "soft, weighted", "smoothed, weighted")
# Of a multiprocessor, where two blocks of up to 256 threads, or one of more, have to fit.
MOST_REGISTERS = 2**16
# Triton 3.5 (torch 2.9) spills two registers in some of the forward's, and in no other.
MOST_SPILLED_BYTES = 0 if tuple(map(int, triton.__version__.split(".")[:2])) > (3, 5) else 8
MOST_SHARED_BYTES = 4 * kernel.MAX_BLOCK_CLASSES  # the class weights of a block, in float32


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))


class Subject(NamedTuple):
    """What a launch is compiled for, and with."""

    target: str = "sm_90"
    half: str = "forward"
    dtype: str = "bf16"
    kind: str = "one-hot"
    reduction: str = "mean"
    is_pointer: bool = False  # alpha
    shape: tuple[int, ...] = (33, 1000)


VALUES = (
    TARGETS,
    ("forward", "backward", "fused", "repair", "prepare", "add_block", "block_gradient"),
    ("bf16", "fp16", "fp32"), TARGET_KINDS,
    ("mean", "sum", "none"), (False, True),
    ((33, 10), (33, 1000), (33, 50264), (2, 21, 64, 64), (2, 150, 7, 7)),
)  # fmt: skip


def covering() -> list[Subject]:
    """Every pair of values in some subject: each next one is the one with most new pairs."""
    left = [subject for values in product(*VALUES) if is_launched(subject := Subject(*values))]
    missing = {pair for subject in left for pair in pairs(subject)}
    chosen = []
    while missing:
        best = max(left, key=lambda subject: len(missing & pairs(subject)))
        missing -= pairs(best)
        chosen.append(best)
    return chosen


def is_launched(subject: Subject) -> bool:
    """Whether there is such a launch: only some losses are made by one."""
    if subject.half in ("forward", "backward"):
        return True
    if subject.half in ("add_block", "block_gradient"):
        return len(subject.shape) == 2
    z = torch.empty(subject.shape, device="meta")
    return fused.takes(z, Options(None, -100, subject.reduction, 0.0, z.dtype))


def pairs(subject: Subject) -> set[tuple[Any, ...]]:
    numbered = list(enumerate(subject))
    return {(one, other) for one in numbered for other in numbered if one < other}


def launches_of(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[Launcher, tuple[Any, ...]]]:
    """What the package would launch, with what arguments, by the names of the kernels."""
    found = {}

    def record(launcher: Launcher, num_programs: int, *arguments: Any) -> None:
        found[launcher._kernel.fn.__name__] = launcher, (*arguments, *launcher._constants)

    dtype, shape = DTYPES[subject.dtype], subject.shape
    z = torch.zeros(shape, dtype=dtype)
    target = torch.zeros(shape[:1] + shape[2:], dtype=torch.int64)
    rows = torch.zeros(target.shape if subject.reduction == "none" else ())
    if "soft" in subject.kind:
        target = torch.zeros_like(z)
    weight = torch.ones(shape[1], dtype=dtype) if "weighted" in subject.kind else None
    smoothing = 0.1 if "smoothed" in subject.kind else 0.0
    options = Options(weight, -100, subject.reduction, smoothing, dtype)
    # On its device alpha stays a tensor; one of a CPU becomes a number.
    alpha: Any = torch.tensor(0.25, device="meta") if subject.is_pointer else 0.25
    with monkeypatch.context() as patch:
        patch.setattr(Launcher, "__call__", record)
        patch.setattr(torch.Tensor, "to", lambda tensor, *_, **__: tensor)
        _, stats = kernel.forward(z, target, alpha, options)
        kernel.backward(rows, z, target, alpha, stats, options)
        if fused.takes(z, options):
            _, stats, made = fused.forward(z, target, alpha, options)
            fused.backward(rows, z, target, alpha, stats, options, made)
        if z.dim() == 2:  # as a block of classes of the linear loss
            of_blocks = passes.Passes(weight, shape[1], target, alpha, options)
            logits = torch.zeros(shape)
            of_blocks.add(logits, 0)
            of_blocks.gradient(logits, 0, of_blocks.sums[:3], logits[:, :1], z)
    return found


def compile_launch(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the compiler makes of the launch that the package would do."""
    launcher, arguments = launches_of(subject, monkeypatch)[f"{subject.half}_kernel"]
    signature, constants, attributes = specialise(launcher._kernel, arguments)
    return triton.compile(
        ASTSource(launcher._kernel, signature, constants, attributes),
        target=TARGETS[subject.target],
        options={
            "num_warps": launcher._num_warps,
            "debug": True,
            "sanitize_overflow": False,
            "enable_fp_fusion": True,
        },
    )


def specialise(
    function: Any, arguments: tuple[Any, ...]
) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], Any]]:
    """Types, constants and what 16 divides, as Triton takes them from the arguments of a call."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int], Any] = {}
    for parameter, value in zip(function.params, arguments, strict=True):
        name, is_special = parameter.name, not parameter.do_not_specialize
        is_one = isinstance(value, int) and value == 1 and is_special
        if parameter.is_constexpr or value is None or is_one:
            signature[name], constants[name] = "constexpr", value
            continue
        if isinstance(value, torch.Tensor):
            signature[name] = f"*{TRITON_NAMES[value.dtype]}"
            is_divided = value.data_ptr() % 16 == 0
            is_divided &= not parameter.do_not_specialize_on_alignment
        else:
            of_integer = "i32" if value < 2**31 else "i64"
            signature[name] = "fp32" if isinstance(value, float) else of_integer
            is_divided = isinstance(value, int) and value % 16 == 0
        if is_divided and is_special:
            attributes[parameter.num,] = [["tt.divisibility", 16]]
    return signature, constants, attributes


def resources(compiled: Any, tmp_path: Any) -> dict[str, int]:
    """Registers of a thread, and bytes that it spills."""
    if "amdgcn" in compiled.asm:
        found = dict(re.findall(r"\.(\w+):\s+(\d+)$", compiled.asm["amdgcn"], re.MULTILINE))
        spills = int(found["vgpr_spill_count"]) + int(found["sgpr_spill_count"])
        return {"registers": int(found["vgpr_count"]), "spills": spills}
    path = tmp_path / "kernel.cubin"
    path.write_bytes(compiled.asm["cubin"])
    command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
    return {"registers": found["REG"], "spills": found["STACK"] + found["LOCAL"]}


def assert_is_lean(subject: Subject, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = compile_launch(subject, monkeypatch)
    used = resources(compiled, tmp_path)
    assert used["spills"] <= MOST_SPILLED_BYTES, subject
    num_threads = 32 * compiled.metadata.num_warps
    num_blocks = 2 if num_threads <= 256 else 1
    assert used["registers"] * num_threads * num_blocks <= MOST_REGISTERS, subject
    assert compiled.metadata.shared <= MOST_SHARED_BYTES, subject


@pytest.mark.parametrize("subject", covering(), ids=str)
def test_every_pair_of_values_compiles_without_a_spill(subject, tmp_path, monkeypatch):
    assert_is_lean(subject, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TARGET_KINDS)
@pytest.mark.parametrize("target", TARGETS)
def test_every_combination_compiles_without_a_spill(target, kind, tmp_path, monkeypatch):
    for values in product(*VALUES):
        subject = Subject(*values)
        if (subject.target, subject.kind) == (target, kind) and is_launched(subject):
            assert_is_lean(subject, tmp_path, monkeypatch)


@pytest.mark.parametrize("half", ["forward", "backward"])
@pytest.mark.parametrize("num_classes", [1000, 1024, 50264, 128256])
def test_half_rows_of_a_multiple_of_8_are_read_and_written_in_128_bits(
    half, num_classes, monkeypatch
):
    """A number of classes that 8 divides, and not 16, was read two bytes at a time."""
    ptx = compile_launch(Subject(half=half, shape=(33, num_classes)), monkeypatch).asm["ptx"]
    vectors = len(re.findall(r"ld\.global[.\w:]*\.v4\.b32", ptx))
    # 16 logits a thread at most, 8 of a load.
    assert vectors == (2 if num_classes > 4096 else 1)
    narrow = len(re.findall(r"ld\.global[.\w:]*\.b16", ptx))
    assert narrow == (1 if half == "forward" else 0)  # the logit of the label
    if half == "backward":
        assert len(re.findall(r"st\.global\.v4\.b32", ptx)) == vectors
        assert not re.findall(r"st\.global\.b16", ptx)


def test_rows_whose_alignment_allows_less_are_read_as_wide_as_it_allows(monkeypatch):
    ptx = compile_launch(Subject(half="backward", shape=(33, 1004)), monkeypatch).asm["ptx"]
    assert re.findall(r"ld\.global[.\w:]*\.v2\.b32", ptx)
    ptx = compile_launch(Subject(half="backward", shape=(33, 1001)), monkeypatch).asm["ptx"]
    assert not re.findall(r"ld\.global[.\w:]*\.v[24]\.b32", ptx)


@pytest.mark.parametrize("half", ["forward", "backward"])
def test_positions_of_half_images_are_read_and_written_in_128_bits(half, monkeypatch):
    ptx = compile_launch(Subject(half=half, shape=(2, 21, 64, 64)), monkeypatch).asm["ptx"]
    assert re.findall(r"ld\.global[.\w:]*\.v4\.b32", ptx)
    if half == "backward":
        assert re.findall(r"st\.global\.v4\.b32", ptx)
        assert not re.findall(r"st\.global\.b16", ptx)


def test_what_one_launcher_launches_is_compiled_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton is asked once for each launcher which compiled kernel its arguments take."""
    launches: dict[Any, list[Any]] = {}

    def record(launcher: Launcher, num_programs: int, *arguments: Any) -> None:
        found = specialise(launcher._kernel, (*arguments, *launcher._constants))
        launches.setdefault(launcher, []).append(found)

    monkeypatch.setattr(Launcher, "__call__", record)
    for values in product(
        ((16,), (17,), (1,), (4, 16), (3, 1), (3, 5)),
        (torch.float32, torch.bfloat16), (torch.float32, torch.float64), (False, True), (0, 1),
        ((False, 1, "mean"), (True, 16, "none"), (False, 2**40, "sum")), (1, 2, 16, 17),
    ):  # fmt: skip
        shape, dtype, other_dtype, is_soft, start, (is_weighted, ignored, how), num_rows = values
        z = flat(dtype, start, (num_rows, *shape))
        target = torch.zeros(num_rows, *shape[1:], dtype=torch.int64)
        rows = torch.zeros(target.shape if how == "none" else (), dtype=other_dtype)
        target = flat(other_dtype, start, z.shape) if is_soft else target
        weight = flat(other_dtype, start, shape[:1]) if is_weighted else None
        options = Options(weight, ignored, how, 0.0, other_dtype)
        on_device = torch.zeros((), dtype=other_dtype, device="meta")
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "to", lambda tensor, *_: tensor)
            for alpha in (0.25, 1.0, on_device):
                _, stats = kernel.forward(z, target, alpha, options)
                kernel.backward(rows, z, target, alpha, stats, options)
    assert any(len(of_one) > 5 for of_one in launches.values())
    for of_one in launches.values():
        assert all(launch == of_one[0] for launch in of_one)


def flat(dtype: torch.dtype, start: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Zeros that begin at this element of their memory, and so at 16 bytes or not."""
    return torch.zeros(start + math.prod(shape), dtype=dtype)[start:].view(shape)


def test_blocks_of_the_linear_loss_are_read_and_written_in_128_bits(monkeypatch):
    for half in ("add_block", "block_gradient"):
        ptx = compile_launch(Subject(half=half, shape=(33, 1024)), monkeypatch).asm["ptx"]
        assert re.findall(r"ld\.global[.\w:]*\.v4\.b32", ptx)
    assert re.findall(r"st\.global\.v[24]\.b32", ptx)
    assert not re.findall(r"st\.global\.b16", ptx)


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("num_classes", [5000, 32000, 50257])
def test_rows_that_are_read_twice_are_read_and_written_in_128_bits(dtype, num_classes, monkeypatch):
    """Rows of an odd length too: what is not of the row is passed over, at its ends alone."""
    subject = Subject(half="fused", dtype=dtype, shape=(33, num_classes))
    ptx = compile_launch(subject, monkeypatch).asm["ptx"]
    assert re.findall(r"ld\.global\.L1::evict_last[.\w:]*\.v4\.b32", ptx)
    assert re.findall(r"ld\.global\.L1::evict_first[.\w:]*\.v4\.b32", ptx)
    assert re.findall(r"st\.global[.\w:]*\.v4\.b32", ptx)
    assert len(re.findall(r"ld\.global[.\w:]*\.b16", ptx)) == (dtype == "bf16")  # the label's
