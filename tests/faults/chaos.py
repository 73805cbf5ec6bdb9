"""Runs that are disturbed, resumed and compared, drawn by seed: `make chaos MINUTES= SEED=`.

A seed draws a configuration and, against it, several rows of faults: signals, lost and stopped
loader workers, disks that fail, memory that is used up, damaged checkpoints. After each row the run
is resumed to its end, and must equal the undisturbed one. A failure prints its seed;
`make chaos MINUTES=0 SEED=<it>` causes it again, as far as its moments are counted and not timed.
"""

import argparse
import errno
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from softmax_gradient_tampering.training.checkpoint.content import load_checkpoint
from softmax_gradient_tampering.training.records.run_files import read_summary
from tests.faults.disturbed import CALLS, disturbed
from tests.training.children import run_children
from tests.training.runs import assert_same_run

Fault = dict[str, Any]
ROWS = 4  # of faults against one configuration
ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT)
# Moments of a run, and how often each comes in it, about.
MOMENTS = {
    "set-up": 1,
    "load": 1,
    "forward": 20,
    "update": 16,
    "evaluation": 5,
    "save": 6,
    "copy": 3,
    "link": 4,
    "rename": 3,
    "write": 9,
    "summary": 3,
    "result": 1,
}

# Each with its share of the runs; of several values one is drawn.
Options = tuple[tuple[float, tuple[str, ...]], ...]
EVERYWHERE: Options = (
    (0.8, tuple(f"--modify-softmax {alpha}" for alpha in (0.05, 0.25, 0.6, 0.92))),
    (0.7, tuple(f"--recovery-interval {steps}" for steps in (1, 2, 3, 5))),
    (0.3, ("--checkpoint-hist 0", "--checkpoint-hist 1", "--checkpoint-hist 3")),
    (0.3, ("--eval-every 2",)),
    (0.3, ("--eval-metric loss", "--eval-metric top5")),
    (0.3, ("--smoothing 0.1",)),
    (0.3, ("--mixup 0.3", "--cutmix 1", "--mixup 0.4 --cutmix 0.7 --mixup-mode elem")),
    (0.2, ("--reprob 0.5", "--reprob 0.3 --remode pixel")),
    (0.3, ("--model-ema --model-ema-decay 0.8", "--model-ema --model-ema-force-cpu")),
    (0.3, ("--grad-accum-steps 2", "--grad-accum-steps 3")),
    (0.3, ("--amp",)),
    (
        0.3,
        ("--clip-grad 1", "--clip-grad 0.1 --clip-mode value", "--clip-grad 0.02 --clip-mode agc"),
    ),
    (0.3, ("--drop 0.3",)),
    (0.2, ("--filter-norms",)),
    (0.2, ("--logit-stats",)),
    (0.2, ("--save-predictions",)),
    (0.1, ("--on-nonfinite skip",)),
    (0.1, ("--log tensorboard",)),
    (0.1, ("--no-channels-last",)),
)
OPTIMIZERS = (
    *("sgd", "momentum", "adamw", "adam", "nadam", "radam", "lamb", "lars", "lion", "adopt"),
    *("rmsproptf", "adafactor", "adabelief", "adan", "madgrad", "novograd", "lookahead_adamw"),
    "adahessian",
)
SCHEDULES = (
    *("cosine", "tanh --lr-cycle-limit 2", "constant", "poly", "plateau --patience-epochs 0"),
    *("step --decay-epochs 1", "cosine --warmup-epochs 1", "cosine --sched-order published"),
    *("cosine --lr-noise 0.1 0.9", "cosine --cooldown-epochs 1"),
)
DIGITS: Options = (
    (1, ("-b 224", "-b 300", "-b 150")),
    (0.3, ("--model digits_cnn", "--model digits_mlp_plain")),
    (0.2, ("--holdout 0.3",)),
)
PHOTOS: Options = (
    (1, ("--workers 0", "--workers 1", "--workers 2", "--workers 2")),
    (1, ("-b 4", "-b 3")),
    (0.3, ("--aa rand-m5-mstd0.5",)),
    (0.2, ("--on-bad-image skip",)),
)


class Configuration:
    """What is trained: the words of a command line, and by how many processes."""

    def __init__(self, draw: random.Random) -> None:
        self.processes = draw.choice((1, 1, 1, 1, 2))
        self.epochs = draw.choice((2, 3))
        self.has_photos = draw.random() < 0.4
        words = f"--seed {draw.randrange(2**31)} --epochs {self.epochs} --output out"
        if self.has_photos:
            words += " --data-dir photos --model resnet20 --img-size 32"
        for share, values in EVERYWHERE + (PHOTOS if self.has_photos else DIGITS):
            if draw.random() < share:
                words += f" {draw.choice(values)}"
        if draw.random() < 0.6:
            names = [name for name in OPTIMIZERS if self.processes == 1 or name != "adahessian"]
            words += f" --opt {draw.choice(names)} --lr {draw.choice((0.001, 0.01))}"
        words += f" --sched {draw.choice(SCHEDULES)}" if draw.random() < 0.6 else ""
        has_alpha = "--modify-softmax" in words
        if has_alpha and draw.random() < 0.2:
            words += f" --loss-kernel {draw.choice(('blocks', 'reference'))}"
        if has_alpha and draw.random() < 0.3:
            words += f" --alpha-schedule {draw.choice(('linear', 'cosine'))} --alpha-end 0.3"
        self.words = words.split()
        self.has_workers = self.has_photos and "--workers 0" not in words


def draw_fault(draw: random.Random, configuration: Configuration, num_steps: int) -> Fault:
    """A fault of one start of a run of so many optimizer steps."""
    kinds = ["kill", "kill", "signal", "timer", "disk", "size", "memory", "stop"]
    kinds += ["worker"] * 3 if configuration.has_workers else []
    kind = draw.choice(kinds)
    fault: Fault = {"kind": kind, "rank": draw.randrange(configuration.processes)}
    if kind in ("kill", "signal", "size"):
        fault |= _draw_moment(draw, tuple(MOMENTS))
    if kind == "stop":
        fault = {"kind": "none", "max_steps": draw.randrange(1, num_steps)}
    elif kind == "kill":
        fault |= {"kind": "signal", "number": int(signal.SIGKILL)}
    elif kind == "signal":
        fault |= {"number": int(draw.choice(SIGNALS))}
    elif kind == "timer":
        number = draw.choice((signal.SIGKILL, *SIGNALS))
        fault |= {"seconds": 3 * draw.random() ** 2, "number": int(number)}
    elif kind == "disk":
        call = draw.choice(CALLS)
        passes = _few(draw, 4 if call in ("link", "unlink") else 25)
        fault |= {"call": call, "passes": passes, "code": draw.choice(ERRORS)}
        fault |= {"stays": draw.random() < 0.7}
    elif kind == "size":
        fault |= {"num_bytes": int(10 ** draw.uniform(3.5, 5.5))}
    elif kind == "memory":
        fault |= _draw_moment(draw, ("set-up", "forward", "update", "evaluation"))
    else:
        fault |= {"passes": _few(draw, 8), "stops_first": draw.random() < 0.5}
    return fault


def _draw_moment(draw: random.Random, names: tuple[str, ...]) -> Fault:
    name = draw.choice(names)
    return {"moment": name, "passes": _few(draw, MOMENTS[name])}


def _few(draw: random.Random, most: int) -> int:
    """Below `most`, and small ones more often: a resumed run is a short one."""
    return int(most * draw.random() ** 2)


# What may be done to the newest checkpoint after a fault.
def _flip(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.unlink()
    path.write_bytes(content)


def _cut(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: draw.randrange(len(content))])


def _make_a_pipe(path: Path, draw: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _remove(path: Path, draw: random.Random) -> None:
    path.unlink()


DAMAGES = {"flip": _flip, "cut": _cut, "pipe": _make_a_pipe, "remove": _remove}


def damage(folder: Path, draw: random.Random) -> tuple[Path, str] | None:
    """Damage a checkpoint that is read when the run goes on, if there is one."""
    paths = [path for name in ("recovery-*", "last") for path in folder.glob(f"{name}.pth.tar")]
    if not paths or draw.random() < 0.7:
        return None
    path = draw.choice(sorted(paths))
    # Where a pipe has the name of a recovery, that is not this program's to remove.
    name = draw.choice([name for name in DAMAGES if name != "pipe" or path.stem == "last.pth"])
    DAMAGES[name](path, draw)
    return path, name


def make_photos(folder: Path) -> None:
    """Small images of random colours, 9 of one class and 8 of another."""
    draw = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, number in (("ant", 9), ("bee", 8)):
            (folder / split / name).mkdir(parents=True)
            for index in range(number):
                pixels = draw.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index:03d}.jpg")


def attempt(configuration: Configuration, experiment: str, fault: Fault) -> int:
    """Train, or go on, with a fault; returns the exit code.

    Raises:
        AssertionError: it ended in another way than is promised.
    """
    fault = dict(fault)
    steps = fault.pop("max_steps", None)
    words = [*configuration.words, "--experiment", experiment, "--resume", "auto"]
    words += [] if steps is None else ["--max-steps", str(steps)]
    done = run_children(disturbed, [json.dumps(fault), *words], configuration.processes)
    code = done.returncode
    said = f"exit code {code}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    assert code in EXIT_CODES[fault["kind"]], said
    assert "Traceback" not in done.stderr, said
    if code == 0 and steps is None:
        assert Path("out", experiment, "result.json").exists(), said
    return code


# Of a process that is killed -9; of others, 1 where one of several has ended before them.
EXIT_CODES = {
    "none": (0,),
    "signal": (0, 1, -signal.SIGKILL, 130, 143),
    "timer": (0, 1, -signal.SIGKILL, 130, 143, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGUSR1),
    "worker": (0, 1),
    "disk": (0, 1, 2),
    "size": (0, 1, 2),
    "memory": (0, 1),
}


def check_whole(folder: Path, damaged: dict[Path, int]) -> None:
    """Check that all that a disturbed run has left under its names is whole.

    Args:
        folder: the run folder.
        damaged: the inodes of the files that were damaged.
    """
    for path in folder.glob("[!.]*.pth.tar"):
        if path.stat().st_ino != damaged.get(path):
            load_checkpoint(path)
    if (folder / "summary.csv").exists():
        numbers = [int(row["epoch"] or 0) for row in read_summary(folder / "summary.csv")]
        assert numbers == sorted(set(numbers)), numbers


def play(seed: int, counts: Counter[str]) -> str:
    """All that a seed draws; returns what failed, or nothing."""
    draw = random.Random(seed)
    configuration = Configuration(draw)
    story = [f"seed {seed}, {configuration.processes} processes: {' '.join(configuration.words)}"]
    try:
        make_photos(Path("photos"))
        attempt(configuration, "whole", {"kind": "none"})
        num_steps = json.loads(Path("out/whole/result.json").read_text())["steps"]
        for _ in range(ROWS):
            shutil.rmtree("out/broken", ignore_errors=True)
            num_faults = draw.choice((1, 1, 2, 3))
            faults = [draw_fault(draw, configuration, num_steps) for _ in range(num_faults)]
            for line in disturb(configuration, faults, draw, counts):
                story.append(line)
            assert attempt(configuration, "broken", {"kind": "none"}) == 0
            assert_same_run(Path("out/broken"), Path("out/whole"))
    except Exception:
        return "\n".join(story) + "\n" + traceback.format_exc()
    return ""


def disturb(
    configuration: Configuration, faults: list[Fault], draw: random.Random, counts: Counter[str]
) -> Iterator[str]:
    """Start a run with one fault after the other; yields what is done, before and after it."""
    folder, damaged = Path("out/broken"), dict[Path, int]()
    for fault in faults:
        yield f"  {fault}"
        code = attempt(configuration, "broken", fault)
        has_hit = code != 0 or "max_steps" in fault
        counts.update((fault["kind"], "faults", *(["with effect"] if has_hit else [])))
        yield f"  -> {code}"
        check_whole(folder, damaged)
        if (folder / "result.json").exists():
            if (
                "max_steps" in fault
            ):  # which its args.yaml holds, and that of the whole run does not
                (folder / "result.json").unlink()
            return
        found = damage(folder, draw)
        if found is not None:
            path, what = found
            counts["damaged"] += 1
            yield f"  {what} {path}"
            if path.exists():
                damaged[path] = path.stat().st_ino


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long; at least one seed")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the first one")
    args = parser.parse_args()
    until = time.monotonic() + 60 * args.minutes
    counts: Counter[str] = Counter()
    num_failed, seed = 0, args.seed
    while True:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            failure = play(seed, counts)
            os.chdir("/")
        if failure:
            num_failed += 1
            print(f"FAILED, again by make chaos MINUTES=0 SEED={seed}:\n{failure}", flush=True)
        seed += 1
        summary = ", ".join(f"{kind} {number}" for kind, number in counts.items())
        print(f"seeds {args.seed} to {seed - 1}: {summary}; failed: {num_failed}", flush=True)
        if time.monotonic() >= until:
            return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main())
