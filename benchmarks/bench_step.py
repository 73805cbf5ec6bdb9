"""The program's training step against a bare PyTorch loop that does the same work.

Images/s of resnet18 at 64x64 and of the digits net, uint8 data in memory, batch 64,
Nesterov SGD, by CPU time on a CPU; the share of a resnet18 step that the loss takes; on a GPU,
whether a step waits for the device. With --folder, the way from JPEG files beside timm's loader.
"""

import argparse
import copy
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.data import create_dataset, create_loader, resolve_data_config
from torch import Tensor

from bare import BareLoop, MemoryBatches, scaled_cross_entropy
from softmax_gradient_tampering.data.factory import MemoryDataset
from softmax_gradient_tampering.data.memory.loaders import Images, MemoryTrainLoader
from softmax_gradient_tampering.loss import TamperedCrossEntropyLoss
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.processes.distributed import start_processes
from softmax_gradient_tampering.training.setup.setup import Setup, set_up
from softmax_gradient_tampering.training.step.position import Position
from softmax_gradient_tampering.training.step.tally import Tally
from softmax_gradient_tampering.training.step.trainer import Outcome
from timer import (
    Row,
    interleave,
    percentiles,
    print_bound,
    print_table,
    report_progress,
    stamp,
    write_csv,
)

ALPHA, BATCH_SIZE, SIZE, CLASSES = 0.25, 64, 64, 10
# The variants; the bare loops differ in the loss, and in whether they keep the sums.
PROGRAM, SCALED, PLAIN, TALLIED = "program", "bare, alpha", "bare, plain", "bare, alpha, tally"
TIMM = "timm loader, bare"


def set_up_resnet(device: str, num_batches: int) -> Setup:
    """The program's objects for resnet18 and random 64x64 images in memory."""
    generator = torch.Generator().manual_seed(0)
    shape = (num_batches * BATCH_SIZE, 3, SIZE, SIZE)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.randint(CLASSES, shape[:1], generator=generator)
    split = Images(images, labels, tuple(map(str, range(CLASSES))))
    dataset = MemoryDataset("random", (split, split), ((0.5,) * 3, (0.29,) * 3), pad=0)
    config = Config(
        model="resnet18",
        data_dir="random",
        batch_size=BATCH_SIZE,
        modify_softmax=ALPHA,
        lr=0.01,
        device=device,
    )
    return set_up(config, start_processes(device), dataset)


def set_up_digits(device: str) -> Setup:
    """The program's objects for the digits net; on a CPU this sets one thread."""
    config = Config(batch_size=BATCH_SIZE, modify_softmax=ALPHA, lr=0.01, device=device)
    return set_up(config, start_processes(device))


def program_epoch(setup: Setup, epoch: int) -> Iterator[Outcome]:
    """Train on the batches of an epoch with the program, tally included."""
    loader, tally = setup.data.train_loader, Tally(setup.processes.device)
    setup.trainer.model.train()
    position = Position(epoch)
    for batch in loader.epoch(epoch):
        outcome = setup.trainer.train_batch(batch, position, loader.batch_sizes)
        tally.add(outcome)
        position.count_batch(outcome.is_update, outcome.is_skipped)
        yield outcome


def program_epochs(setup: Setup) -> Iterator[int]:
    """Train on an epoch a time with the program, tally included."""
    epoch = 0
    while True:
        for _ in program_epoch(setup, epoch):
            pass
        yield epoch
        epoch += 1


def bare_epochs(setup: Setup, loop: BareLoop) -> Iterator[int]:
    """Train on an epoch a time with the bare loop, on the program's batches."""
    assert isinstance(setup.data.train_loader, MemoryTrainLoader)
    batches = MemoryBatches(setup.data.train_loader, setup.config.channels_last)
    epoch = 0
    while True:
        for images, labels in batches.epoch(epoch):
            loop.step(images, labels)
        yield epoch
        epoch += 1


def compare_epochs(setup: Setup, subject: str, num_turns: int) -> tuple[list[Row], list[float]]:
    """Rows of images/s by variant, and the seconds of the program's epochs."""
    optimizer = setup.trainer.optimizer
    loops = {
        name: BareLoop(copy.deepcopy(setup.trainer.model), optimizer, criterion, name == TALLIED)
        for name, criterion in (
            (SCALED, scaled_cross_entropy(ALPHA)),
            (PLAIN, F.cross_entropy),
            (TALLIED, scaled_cross_entropy(ALPHA)),
        )
    }
    program = program_epochs(setup)
    runs = {PROGRAM: program} | {name: bare_epochs(setup, loop) for name, loop in loops.items()}
    for run in runs.values():
        next(run)
    check_same_work(setup.trainer.model, loops[SCALED].model)
    steps: dict[str, Callable[[], object]] = {name: run.__next__ for name, run in runs.items()}
    # By the CPU's time: other programs on the machine disturb it less.
    clock = time.process_time
    seconds = interleave(steps, num_turns, setup.processes.device, subject, clock=clock)
    return rate_rows(subject, seconds, setup.data.train_loader.num_samples), seconds[PROGRAM]


def check_same_work(model: torch.nn.Module, other: torch.nn.Module) -> None:
    """After an epoch from the same weights, both loops must be at the same weights again."""
    for (name, value), expected in zip(
        model.state_dict().items(), other.state_dict().values(), strict=True
    ):
        if not torch.allclose(value.double(), expected.double(), rtol=1e-3, atol=1e-4):
            raise SystemExit(f"the two loops do not do the same work: {name} differs")


def rate_rows(subject: str, seconds: dict[str, list[float]], num_images: int) -> list[Row]:
    """Images/s of every variant, and the program's by those of each other one."""
    rows, program = [], seconds[PROGRAM]
    for name, values in seconds.items():
        rates = percentiles([num_images / value for value in values])
        rows.append(Row("step", subject, name, "throughput", "images/s", **rates))
    for name, values in seconds.items():
        if name != PROGRAM:
            ratios = [other / own for own, other in zip(program, values, strict=True)]
            row = Row("step", subject, PROGRAM, "relative throughput", "1", **percentiles(ratios))
            row.ratio_to, row.ratio = name, row.p50
            rows.append(row)
    return rows


def loss_rows(device: torch.device, step_s: float, num_turns: int) -> list[Row]:
    """Forward and backward of the loss alone, as a share of a resnet18 step."""
    rows = []
    losses = {"tampered": TamperedCrossEntropyLoss(ALPHA), "torch": F.cross_entropy}
    num_calls = 50
    for num_classes in (CLASSES, 1000):
        logits = torch.randn(BATCH_SIZE, num_classes, device=device, requires_grad=True)
        labels = torch.randint(num_classes, (BATCH_SIZE,), device=device)

        def repeat(
            loss_fn: Callable[..., Tensor], logits: Tensor = logits, labels: Tensor = labels
        ) -> None:
            for _ in range(num_calls):
                logits.grad = None
                loss_fn(logits, labels).backward()

        variants = {name: lambda fn=fn, repeat=repeat: repeat(fn) for name, fn in losses.items()}
        subject = f"loss {BATCH_SIZE}x{num_classes}"
        for name, values in interleave(variants, num_turns, device, subject).items():
            microseconds = [1e6 * value / num_calls for value in values]
            row = Row("step", subject, name, "time", "us", **percentiles(microseconds))
            row.ratio_to = "resnet18 64x64 step"
            row.ratio = f"{float(row.p50) / 1e6 / step_s:.6f}"
            rows.append(row)
    return rows


def sync_row(setup: Setup | None, subject: str) -> Row:
    """How many steps of an epoch pass before one waits for the GPU; the ratio is the share."""
    row = Row("step", subject, PROGRAM, "steps without host sync", "steps", p50="not measured")
    if setup is None or setup.processes.device.type != "cuda":
        return row
    num_steps = 0
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in program_epoch(setup, 0):
            num_steps += 1
    except RuntimeError as error:
        print(f"{subject}: step {num_steps} waits for the GPU: {error}")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    row.p50, row.ratio_to = str(num_steps), "steps of an epoch"
    row.ratio = f"{num_steps / len(setup.data.train_loader):.4f}"
    return row


def folder_rows(folder: Path, device: str, num_turns: int, num_batches: int) -> list[Row]:
    """Images/s from JPEG files to weights: the program, and timm's loader with the bare step."""
    config = Config(
        model="resnet18",
        data_dir=str(folder),
        img_size=SIZE,
        batch_size=BATCH_SIZE,
        workers=1,
        modify_softmax=ALPHA,
        lr=0.01,
        device=device,
    )
    setup = set_up(config, start_processes(device))
    criterion = scaled_cross_entropy(ALPHA)
    loop = BareLoop(copy.deepcopy(setup.trainer.model), setup.trainer.optimizer, criterion)
    program, timm = program_batches(setup), timm_batches(setup, loop)

    def take(batches: Iterator[object]) -> None:
        for _ in islice(batches, num_batches):
            pass

    variants = {PROGRAM: lambda: take(program), TIMM: lambda: take(timm)}
    seconds = interleave(variants, num_turns, setup.processes.device, "resnet18 64x64 JPEG")
    return rate_rows("resnet18 64x64 JPEG", seconds, num_batches * BATCH_SIZE)


def program_batches(setup: Setup) -> Iterator[Outcome]:
    """Train on a batch at a time with the program, epoch after epoch."""
    epoch = 0
    while True:
        yield from program_epoch(setup, epoch)
        epoch += 1


def timm_batches(setup: Setup, loop: BareLoop) -> Iterator[None]:
    """Train on a batch of timm's loader at a time with the bare loop, epoch after epoch."""
    config = setup.config
    assert config.data_dir is not None
    statistics = resolve_data_config({}, model=setup.trainer.model)
    loader = create_loader(
        create_dataset("", root=config.data_dir, split=config.train_split),
        input_size=(3, SIZE, SIZE),
        batch_size=BATCH_SIZE,
        is_training=True,
        scale=config.scale,
        ratio=config.ratio,
        hflip=config.hflip,
        color_jitter=config.color_jitter,
        interpolation=config.train_interpolation,
        mean=statistics["mean"],
        std=statistics["std"],
        num_workers=1,
        device=setup.processes.device,
    )
    while True:
        for images, labels in loader:
            loop.step(images.contiguous(memory_format=torch.channels_last), labels)
            yield


def print_bounds(rows: list[Row]) -> None:
    """A line for every bound, and whether it holds."""
    for row in rows:
        what = f"{row.subject}, {row.variant}"
        if row.metric == "relative throughput" and row.ratio_to != PLAIN:
            bound = {"resnet18 64x64": 0.97, "digits_mlp": 0.85}.get(row.subject, 1.0)
            print_bound(f"{what} / {row.ratio_to}", float(row.ratio), at_least=bound)
        elif row.subject.startswith("loss") and row.variant == "tampered":
            print_bound(f"{what} / {row.ratio_to}", float(row.ratio), below=0.01)
        elif row.metric == "steps without host sync" and row.ratio:
            print_bound(f"{what}, {row.metric}", float(row.ratio), at_least=1.0)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads of torch for resnet18 (default: torch's)"
    )
    parser.add_argument(
        "--turns", type=int, default=25, metavar="N", help="turns of resnet18 (default: 25)"
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="also train from DIR/train/<class>/*.jpg"
    )
    parser.add_argument(
        "--save", action="store_true", help="write results/<date>-<device>-step.csv"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    device = torch.device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    threads = torch.get_num_threads()

    report_progress("setting up")
    resnet = set_up_resnet(args.device, num_batches=20 if device.type == "cuda" else 2)
    rows, epoch_seconds = compare_epochs(resnet, "resnet18 64x64", args.turns)
    step_s = float(percentiles(epoch_seconds)["p50"]) / len(resnet.data.train_loader)
    rows += [*loss_rows(device, step_s, 4 * args.turns), sync_row(resnet, "resnet18 64x64")]
    if args.folder:
        rows += folder_rows(args.folder, args.device, args.turns // 2, num_batches=5)
    stamp(rows, device, threads)

    digits = set_up_digits(args.device)
    digits_rows, _ = compare_epochs(digits, "digits_mlp", 12 * args.turns)
    digits_rows.append(sync_row(digits, "digits_mlp"))
    stamp(digits_rows, device, torch.get_num_threads())
    rows += digits_rows

    print_table(rows)
    print()
    print_bounds(rows)
    if args.save:
        print(write_csv(rows, "step"))


if __name__ == "__main__":
    main()
