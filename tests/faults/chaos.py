"""Runs that are disturbed, resumed and compared, drawn by seed: `make chaos MINUTES= SEED=`.

A seed draws a configuration and, against it, several rows of faults: signals, lost and stopped
loader workers, disks that fail, memory that is used up, damaged checkpoints. After each row the run
is resumed to its end, and must equal the undisturbed one. Every tenth seed does so with a study. A
failure prints its seed; `make chaos MINUTES=0 SEED=<it>` causes it again, as far as its moments are
counted and not timed.
"""

import argparse
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

import numpy as np
from PIL import Image

from softmax_gradient_tampering.training.checkpoint.content import load_checkpoint
from softmax_gradient_tampering.training.records.run_files import read_summary
from tests.faults.disturbed import disturbed
from tests.faults.draws import Configuration, Fault, draw_fault
from tests.faults.study_chaos import play_study
from tests.training.children import run_children
from tests.training.runs import assert_same_run

ROWS = 4  # of faults against one configuration
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
    if draw.random() < 0.1:
        return play_study(seed, draw, counts)
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
