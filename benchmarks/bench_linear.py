"""From hidden states to the loss, without the logits: against torch and other packages.

Forward and backward, with the gradients of hidden states and weight. By rows x features x
classes: time, and this package's by each other one's; peak memory above inputs, gradients
included. One thread of a CPU is measured in its CPU time, all else in wall time. The others run at
alpha 1, which is the same work.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from peers import linear_losses
from softmax_gradient_tampering import tampered_linear_cross_entropy
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
TAMPERED, WHOLE, CHUNKED = "tampered", "torch, whole logits", "torch, chunked"

CPU_SHAPES = ((512, 512, 32_000), (1024, 256, 32_000), (64, 512, 32_000))
GPU_SHAPES = ((8192, 2048, 128_256), (8192, 2048, 32_000), (4096, 4096, 128_256))

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass
class Subject:
    """Hidden states and weights of logits of standard deviation 1, and labels."""

    dtype: torch.dtype
    num_rows: int
    num_features: int
    num_classes: int
    device: torch.device

    def make(self) -> tuple[Tensor, Tensor, Tensor]:
        torch.manual_seed(0)
        make = partial(torch.randn, dtype=self.dtype, device=self.device)
        hidden = make(self.num_rows, self.num_features)
        weight = make(self.num_classes, self.num_features)
        weight.mul_(self.num_features**-0.5)
        target = torch.randint(self.num_classes, (self.num_rows,), device=self.device)
        return hidden.requires_grad_(), weight.requires_grad_(), target

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{dtype} {self.num_rows}x{self.num_features}x{self.num_classes}"


def loss_functions(subject: Subject) -> dict[str, Loss]:
    losses: dict[str, Loss] = {
        TAMPERED: partial(tampered_linear_cross_entropy, alpha=ALPHA),
        WHOLE: lambda hidden, weight, target: F.cross_entropy(F.linear(hidden, weight), target),
    }
    if hasattr(F, "linear_cross_entropy"):  # torch 2.13 and later
        options = torch.nn.LinearCrossEntropyOptions
        losses[CHUNKED] = partial(F.linear_cross_entropy, options=options())
        # Larger chunks than it chooses itself, of an eighth of the logits, are often faster.
        eighth = options(batch_chunk_size=max(1, subject.num_rows // 8))
        losses[f"{CHUNKED} by 8"] = partial(F.linear_cross_entropy, options=eighth)
    return losses | (linear_losses() if subject.device.type == "cuda" else {})


def measure(subject: Subject, num_turns: int) -> list[Row]:
    """Rows of time, relative time and peak memory."""
    hidden, weight, target = subject.make()
    check_gradients(hidden, weight, target)

    def forget() -> None:
        hidden.grad = weight.grad = None

    def step(loss_fn: Loss) -> None:
        forget()
        loss_fn(hidden, weight, target).backward()

    steps: dict[str, Callable[[], object]] = {}
    rows = []
    for name, loss_fn in loss_functions(subject).items():
        report_progress(f"{subject}: first call of {name}")
        try:
            step(loss_fn)
        except Exception as error:  # no memory: the others can be measured
            print(f"{subject}, {name}: {type(error).__name__}: {str(error)[:200]}")
            rows.append(Row("linear", str(subject), name, "time", "ms", p50="not measured"))
        else:
            steps[name] = partial(step, loss_fn)
    num_calls = calls_per_turn(steps[TAMPERED], subject.device)
    variants = {name: partial(repeat, call, num_calls) for name, call in steps.items()}
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds = interleave(variants, num_turns, subject.device, str(subject), clock=clock)
    rows += time_rows("linear", str(subject), TAMPERED, seconds, num_calls)
    peaks = {name: peak_memory(call, forget, subject.device) for name, call in steps.items()}
    peaks["gradients alone"] = hidden.nbytes + weight.nbytes
    return rows + memory_rows("linear", str(subject), TAMPERED, peaks)


def repeat(function: Callable[[], object], num_calls: int) -> None:
    for _ in range(num_calls):
        function()


def check_gradients(hidden: Tensor, weight: Tensor, target: Tensor) -> None:
    """Those of 64 rows against whole logits in float32, before anything is timed."""
    hidden, target = hidden[:64].detach(), target[:64]
    x, w = (tensor.detach().requires_grad_() for tensor in (hidden, weight))
    actual = torch.autograd.grad(tampered_linear_cross_entropy(x, w, target, ALPHA), (x, w))
    x, w = (tensor.detach().float().requires_grad_() for tensor in (hidden, weight))
    loss = F.cross_entropy(ALPHA * F.linear(x, w), target) / ALPHA
    for ours, expected in zip(actual, torch.autograd.grad(loss, (x, w)), strict=True):
        difference = (ours.float() - expected).abs().max()
        if difference > 2e-2 * expected.abs().max():
            raise SystemExit(f"wrong gradient: it differs by {difference:.3g}")


def print_bounds(rows: list[Row]) -> None:
    """A line for every figure that is aimed at, and whether it is reached."""
    for row in rows:
        if row.metric == "relative time" and row.ratio_to != WHOLE:
            print_bound(f"{row.subject}, time / {row.ratio_to}", float(row.ratio), below=1.0)
    for subject in dict.fromkeys(row.subject for row in rows):
        peaks = {
            row.variant: float(row.p50)
            for row in rows
            if (row.subject, row.metric) == (subject, "peak memory")
        }
        del peaks["gradients alone"]
        ratio = peaks.pop(TAMPERED) / min(peaks.values())
        print_bound(f"{subject}, peak memory / leanest of the others", ratio, below=1.1)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads of torch (default: torch's)"
    )
    parser.add_argument(
        "--turns", type=int, default=7, metavar="N", help="turns of every shape (default: 7)"
    )
    parser.add_argument(
        "--shapes",
        type=lambda text: tuple(map(int, text.split("x"))),
        nargs="+",
        metavar="NxDxC",
        help="rows x features x classes (default: those of docs/benchmarks.md)",
    )
    parser.add_argument(
        "--save", action="store_true", help="write results/<date>-<device>-linear.csv"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    device = torch.device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    is_cpu = device.type == "cpu"
    shapes: Sequence[tuple[int, int, int]] = args.shapes or (CPU_SHAPES if is_cpu else GPU_SHAPES)
    rows = []
    for shape in shapes:
        dtype = torch.float32 if is_cpu else torch.bfloat16
        rows += measure(Subject(dtype, *shape, device), args.turns)
    stamp(rows, device, torch.get_num_threads())
    print_table(rows)
    print()
    print_bounds(rows)
    if args.save:
        print(write_csv(rows, "linear"))


if __name__ == "__main__":
    main()
