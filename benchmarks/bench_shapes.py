"""The tampered cross-entropy by torch's, over the shapes, layouts and options that logits come in.

Forward and backward of the loss alone on a CPU, one thread in CPU time, more in wall time, which
says something only where nothing else runs.
By shape: time, and this package's by that of `F.cross_entropy`; the same without the compiled
kernel. `--name` and `--add` put the figures of an older checkout, named by PYTHONPATH, beside them.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from softmax_gradient_tampering import tampered_cross_entropy
from timer import Row, interleave, print_bound, print_table, stamp, time_rows, write_csv

ALPHA = 0.25
TORCH = "torch"
SECONDS_PER_TURN = 0.004


@dataclass
class Subject:
    """Logits of standard deviation 3, and a target."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    soft: bool = False
    weighted: bool = False
    smoothing: float = 0.0
    bound: float = 1.0  # the largest ratio to torch's time of one thread that is aimed at
    options: dict[str, Any] = field(default_factory=dict)

    def make(self) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        logits = torch.randn(self.shape).mul_(3).to(self.dtype)
        if self.channels_last:
            logits = logits.contiguous(memory_format=torch.channels_last)
        target = torch.randint(self.shape[1], (self.shape[0], *self.shape[2:]))
        if self.soft:
            target = torch.softmax(torch.randn(self.shape), 1).to(self.dtype)
        if self.weighted:
            self.options["weight"] = torch.rand(self.shape[1], dtype=self.dtype) + 0.5
        if self.smoothing:
            self.options["label_smoothing"] = self.smoothing
        return logits.requires_grad_(), target

    def __str__(self) -> str:
        words = [
            f"{str(self.dtype).removeprefix('torch.')} {'x'.join(map(str, self.shape))}",
            "channels last" * self.channels_last,
            "probabilities" * self.soft,
            "class weights" * self.weighted,
            "smoothing" * bool(self.smoothing),
        ]
        return ", ".join(filter(None, words))


BOUNDS: dict[tuple[int, ...], float] = {
    **dict.fromkeys(((64, 10), (128, 100)), 1.4),
    (256, 1000): 0.65,
    (1024, 1000): 0.75,
    (512, 32_000): 0.3,
    (65_536, 5): 0.3,
    (131_072, 21): 0.6,
    **dict.fromkeys(((1024, 10), (1024, 100), (16_384, 100)), 1.0),
    (8192, 256): 1.0,
    **dict.fromkeys(((4, 2, 256, 256), (4, 3, 256, 256)), 0.65),
    **dict.fromkeys(((2, 19, 256, 256), (8, 21, 128, 128), (2, 150, 128, 128)), 0.6),
    (2, 1000, 64, 64): 1.0,
    (16, 50, 512): 0.75,
    (8, 100, 196): 0.75,
}
BLOCKS_BOUND = 1.5
IMAGES = (8, 21, 128, 128)
SUBJECTS = (
    *(Subject(shape, bound=bound) for shape, bound in BOUNDS.items()),
    Subject(IMAGES, torch.bfloat16, bound=0.6),
    Subject((1024, 1000), torch.bfloat16),
    *(
        Subject(shape, channels_last=True)
        for shape in ((4, 2, 256, 256), IMAGES, (2, 150, 128, 128))
    ),
    *(
        Subject(shape, **option)
        for shape in ((256, 1000), (131_072, 21), IMAGES)
        for option in ({"weighted": True}, {"smoothing": 0.1}, {"soft": True})
    ),
)


def measure(subject: Subject, own: str, num_turns: int, with_blocks: bool) -> list[Row]:
    """Rows of time, and of time by torch's."""
    logits, target = subject.make()
    tampered = partial(tampered_cross_entropy, alpha=ALPHA)
    losses: dict[str, Callable[..., Tensor]] = {own: tampered, TORCH: F.cross_entropy}
    if with_blocks:
        losses[f"{own}, blocks"] = partial(tampered, kernel="blocks")

    def repeat(loss_fn: Callable[..., Tensor], num_calls: int) -> None:
        for _ in range(num_calls):
            logits.grad = None
            loss_fn(logits, target, **subject.options).backward()

    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    repeat(losses[TORCH], 2)
    started = clock()
    repeat(losses[TORCH], 1)
    num_calls = max(1, round(SECONDS_PER_TURN / (clock() - started)))
    variants = {name: partial(repeat, loss_fn, num_calls) for name, loss_fn in losses.items()}
    cpu = torch.device("cpu")
    seconds = interleave(variants, num_turns, cpu, str(subject), clock=clock)
    rows = []
    for name in losses:
        if name != TORCH:
            pair = {name: seconds[name], TORCH: seconds[TORCH]}
            rows += time_rows("shapes", str(subject), name, pair, num_calls)
    return list({(row.variant, row.metric): row for row in rows}.values())


def print_bounds(rows: list[Row]) -> None:
    """A line for every ratio of one thread, and whether it is as aimed at."""
    bounds = {str(subject): subject.bound for subject in SUBJECTS}
    for row in rows:
        if row.metric == "relative time" and row.threads == "1":
            is_blocks = row.variant.endswith("blocks")
            bound = BLOCKS_BOUND if is_blocks else bounds[row.subject]
            print_bound(f"{row.subject}, {row.variant}", float(row.ratio), below=bound)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        default=[1],
        metavar="N",
        help="one or several (default: 1)",
    )
    parser.add_argument(
        "--turns", type=int, default=21, metavar="N", help="turns of every shape (default: 21)"
    )
    parser.add_argument(
        "--name", default="tampered", help="what this package is called (default: tampered)"
    )
    parser.add_argument("--without-blocks", action="store_true", help="the kernel alone")
    parser.add_argument("--save", action="store_true", help="write results/<date>-...-shapes.csv")
    parser.add_argument("--add", action="store_true", help="add to that file")
    args = parser.parse_args()
    rows = []
    for num_threads in args.threads:
        torch.set_num_threads(num_threads)
        found = []
        for subject in SUBJECTS:
            with_blocks = num_threads == 1 and not args.without_blocks
            found += measure(subject, args.name, args.turns, with_blocks)
        stamp(found, torch.device("cpu"), num_threads)
        rows += found
    print_table(rows)
    print()
    print_bounds(rows)
    if args.save or args.add:
        print(write_csv(rows, "shapes", adds=args.add))


if __name__ == "__main__":
    main()
