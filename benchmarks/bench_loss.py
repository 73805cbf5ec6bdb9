"""The tampered cross-entropy of logits against torch's, and against other packages'.

Forward and backward of the loss alone, with the logits' gradient. By rows x classes: time,
and this package's by each other one's; peak memory; the largest error against float64. On a
GPU also the memory floor: the time of three passes over the logits, as the least that reads
them twice and writes a gradient once, at the speed of a copy in the same turn.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from peers import logits_losses
from softmax_gradient_tampering import tampered_cross_entropy
from timer import (
    Row,
    calls_per_turn,
    interleave,
    memory_rows,
    peak_memory,
    print_bound,
    print_table,
    report_progress,
    stamp,
    time_rows,
    write_csv,
)

ALPHA = 0.25
TAMPERED, EAGER, EAGER_ALPHA = "tampered", "torch", "torch, alpha"
BLOCKS = "tampered, blocks"
COMPILED_ALPHA, HOOK, FLOOR = "torch, alpha, compiled", "published hook", "memory floor"

CPU_SHAPES = ((512, 32_000), (256, 128_256), (256, 1000), (1024, 1000), (64, 10))
GPU_SHAPES = tuple(product((4096, 16_384), (1000, 32_000, 128_256)))
# Largest ratios of time that are aimed at, by variant; on a CPU, by the number of classes.
CPU_BOUNDS = {
    32_000: {EAGER: 0.6, COMPILED_ALPHA: 1.1},
    128_256: {EAGER: 0.6, COMPILED_ALPHA: 1.1},
    1000: {EAGER: 1.5},
}
GPU_BOUNDS = {EAGER: 0.5, COMPILED_ALPHA: 1.0, FLOOR: 1.3}

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Subject:
    """Logits of standard deviation 3 and their labels."""

    dtype: torch.dtype
    num_rows: int
    num_classes: int
    device: torch.device

    def make(self) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        shape = (self.num_rows, self.num_classes)
        # In the dtype from the start: a float32 copy would not fit beside some of them.
        logits = torch.randn(shape, dtype=self.dtype, device=self.device).mul_(3).requires_grad_()
        return logits, torch.randint(self.num_classes, (self.num_rows,), device=self.device)

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} {self.num_rows}x{self.num_classes}"


def at_alpha(loss_fn: Loss, logits: Tensor, target: Tensor) -> Tensor:
    """An ordinary cross-entropy, made to have the tampered gradient; its value is another."""
    return loss_fn(ALPHA * logits, target) / ALPHA


def hooked(logits: Tensor, target: Tensor) -> Tensor:
    """As the published code does it: p from the incoming gradient, in a hook on the logits."""
    num_rows, num_classes = logits.shape
    logits = logits.view_as(logits)  # a hook on the leaf would stay
    q = F.one_hot(target, num_classes)

    def tamper(grad: Tensor) -> Tensor:
        power = (grad * num_rows + q) ** ALPHA
        return (power / power.sum(1, keepdim=True) - q) / num_rows

    logits.register_hook(tamper)
    return F.cross_entropy(logits, target)


def loss_functions(device: torch.device) -> dict[str, Loss]:
    torch.compiler.reset()
    compiled = torch.compile(partial(at_alpha, F.cross_entropy), dynamic=False)
    losses: dict[str, Loss] = {
        TAMPERED: lambda logits, target: tampered_cross_entropy(logits, target, ALPHA),
        EAGER: F.cross_entropy,
        EAGER_ALPHA: partial(at_alpha, F.cross_entropy),
        COMPILED_ALPHA: compiled,
        HOOK: hooked,
    }
    if device.type == "cpu":  # what a machine without a compiler has
        losses[BLOCKS] = lambda z, target: tampered_cross_entropy(z, target, ALPHA, kernel="blocks")
    else:
        # At alpha, as it writes over the logits that it is given.
        losses |= {name: partial(at_alpha, fn) for name, fn in logits_losses().items()}
    return losses


def measure(subject: Subject, num_turns: int) -> list[Row]:
    """Rows of time, relative time and peak memory."""
    logits, target = subject.make()

    def forget() -> None:
        logits.grad = None

    def step(loss_fn: Loss) -> None:
        forget()
        loss_fn(logits, target).backward()

    steps, rows = first_calls(subject, step)
    check_same_gradient(logits, steps)
    num_calls = calls_per_turn(steps[TAMPERED], subject.device)
    variants = {name: partial(repeat, call, num_calls) for name, call in steps.items()}
    if subject.device.type == "cuda":
        copy = partial(torch.empty_like(logits, requires_grad=False).copy_, logits.detach())
        variants[FLOOR] = partial(repeat, copy, num_calls)
        del copy
    seconds = interleave(variants, num_turns, subject.device, str(subject))
    del variants
    if FLOOR in seconds:  # a copy is two passes
        seconds[FLOOR] = [1.5 * value for value in seconds[FLOOR]]
    rows += time_rows("loss", str(subject), TAMPERED, seconds, num_calls)
    peaks = {name: peak_memory(call, forget, subject.device) for name, call in steps.items()}
    peaks["gradient alone"] = logits.nbytes
    return rows + memory_rows("loss", str(subject), TAMPERED, peaks)


def first_calls(
    subject: Subject, step: Callable[[Loss], None]
) -> tuple[dict[str, Callable[[], object]], list[Row]]:
    """The variants that run here, called once; and a row for each of the others."""
    steps: dict[str, Callable[[], object]] = {}
    rows = []
    for name, loss_fn in loss_functions(subject.device).items():
        report_progress(f"{subject}: first call of {name}")
        try:
            step(loss_fn)
        except Exception as error:  # no memory, no compiler: the others can be measured
            print(f"{subject}, {name}: {type(error).__name__}: {str(error)[:200]}")
            rows.append(Row("loss", str(subject), name, "time", "ms", p50="not measured"))
        else:
            steps[name] = partial(step, loss_fn)
    return steps, rows


def repeat(function: Callable[[], object], num_calls: int) -> None:
    for _ in range(num_calls):
        function()


def check_same_gradient(logits: Tensor, steps: dict[str, Callable[[], object]]) -> None:
    """What is said to have the tampered gradient must have it, before anything is timed."""
    steps[TAMPERED]()
    expected = logits.grad
    assert expected is not None
    for name, step in steps.items():
        if name not in (TAMPERED, EAGER, HOOK):  # the hook's own is known to be inexact
            step()
            assert logits.grad is not None
            rows = slice(0, 64)  # of large logits there is no memory for more tensors
            difference = (logits.grad[rows].float() - expected[rows].float()).abs().max()
            if difference > 3e-2 * expected[rows].float().abs().max():
                raise SystemExit(f"{name} has another gradient: it differs by {difference:.3g}")


def accuracy_rows(subject: Subject) -> list[Row]:
    """The largest error of value and gradient, |z| up to 100, in ulps of the largest number."""
    shape = (64, subject.num_classes)
    torch.manual_seed(1)
    logits = (torch.rand(shape, dtype=torch.float64, device=subject.device) * 200 - 100).to(
        subject.dtype
    )
    target = torch.randint(subject.num_classes, shape[:1], device=subject.device)
    errors: dict[str, list[list[float]]] = {TAMPERED: [], EAGER_ALPHA: []}
    for alpha in (0.01, 0.25, 1.0):
        truth = value_and_gradient(torchs_two, logits.double(), target, alpha)
        for name, loss_fn in ((TAMPERED, tampered_cross_entropy), (EAGER_ALPHA, torchs_two)):
            results = value_and_gradient(loss_fn, logits, target, alpha)
            errors[name].append([error_in_ulps(*pair) for pair in zip(results, truth, strict=True)])
    rows = []
    for index, what in enumerate(("value", "gradient")):
        largest = {name: max(error[index] for error in found) for name, found in errors.items()}
        for name, error in largest.items():
            row = Row("loss", str(subject), name, f"largest error of the {what}", "ulp")
            row.p50 = f"{error:.3g}"
            rows.append(row)
    return rows


def torchs_two(logits: Tensor, target: Tensor, alpha: float) -> Tensor:
    """Torch's value at alpha 1, and its gradient at alpha."""
    value = F.cross_entropy(logits, target).detach()
    at_alpha_z = F.cross_entropy(alpha * logits, target) / alpha
    return value + (at_alpha_z - at_alpha_z.detach())


def value_and_gradient(
    loss_fn: Callable[..., Tensor], logits: Tensor, target: Tensor, alpha: float
) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    loss = loss_fn(logits, target, alpha)
    (grad,) = torch.autograd.grad(loss, logits)
    return loss.detach(), grad


def error_in_ulps(result: Tensor, truth: Tensor) -> float:
    result, truth = result.cpu(), truth.cpu()  # nextafter of half types is not on every device
    largest = truth.abs().max().to(result.dtype)
    ulp = torch.nextafter(largest, torch.full_like(largest, torch.inf)) - largest
    return ((result.double() - truth).abs().max() / ulp.double()).item()


def print_bounds(rows: list[Row], device: torch.device) -> None:
    """A line for every figure that is aimed at, and whether it is reached."""
    for row in rows:
        if row.metric == "relative time":
            num_classes = int(row.subject.split("x")[1])
            bounds = CPU_BOUNDS.get(num_classes, {}) if device.type == "cpu" else GPU_BOUNDS
            peers = {} if device.type == "cpu" else dict.fromkeys(logits_losses(), 1.0)
            bound = (bounds | peers).get(row.ratio_to)
            if bound is not None:
                print_bound(f"{row.subject}, time / {row.ratio_to}", float(row.ratio), below=bound)
        elif row.variant == "gradient alone" and float(row.p50) > 16:  # MiB: one of many rows
            what = f"{row.subject}, peak memory / gradient"
            print_bound(what, 1 / float(row.ratio), below=1.1)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads of torch (default: torch's)"
    )
    parser.add_argument(
        "--turns", type=int, default=15, metavar="N", help="turns of every shape (default: 15)"
    )
    parser.add_argument(
        "--shapes",
        type=lambda text: tuple(map(int, text.split("x"))),
        nargs="+",
        metavar="NxC",
        help="rows x classes (default: those of docs/benchmarks.md)",
    )
    parser.add_argument(
        "--save", action="store_true", help="write results/<date>-<device>-loss.csv"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    device = torch.device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    is_cpu = device.type == "cpu"
    shapes = args.shapes or (CPU_SHAPES if is_cpu else GPU_SHAPES)
    dtypes = (torch.float32,) if is_cpu else (torch.bfloat16, torch.float32)
    rows = []
    for dtype, (num_rows, num_classes) in product(dtypes, shapes):
        subject = Subject(dtype, num_rows, num_classes, device)
        rows += measure(subject, args.turns)
        rows += accuracy_rows(subject)
    stamp(rows, device, torch.get_num_threads())
    print_table(rows)
    print()
    print_bounds(rows, device)
    if args.save:
        print(write_csv(rows, "loss"))


if __name__ == "__main__":
    main()
