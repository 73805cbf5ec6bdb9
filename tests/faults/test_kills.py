"""Runs that are killed at chosen moments, resumed, and compared with the unbroken one.

`make test` runs a handful; `make faults` all of them.
"""

import importlib.util
import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.faults.victim import MOMENTS, victim
from tests.training.children import run_children
from tests.training.runs import assert_same_run, program, train

KILL, TERM, INT, USR1 = signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1
EXIT_CODES = {KILL: -KILL, TERM: 143, USR1: 143, INT: 130}

# 1,347 images: 6 batches an epoch.
DIGITS = ("--epochs", 4, "--modify-softmax", 0.25, "--recovery-interval", 4)
VARIANTS = {
    "digits": DIGITS,
    "everything": (
        *(*DIGITS, "--mixup", 0.3, "--reprob", 0.5, "--model", "digits_cnn", "--model-ema"),
        *("--model-ema-decay", 0.9, "--grad-accum-steps", 2, "--amp", "--filter-norms"),
    ),
    "photos": (
        *("--data_dir", "photos", "--model", "resnet20", "--img-size", 32, "-b", 4, "-j", 2),
        *("--epochs", 3, "--reprob", 0.5, "--recovery-interval", 3),
    ),
}
if importlib.util.find_spec("nvidia"):
    VARIANTS["dali"] = (*VARIANTS["photos"], "--dali")


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, make_images: Callable[..., Path]) -> None:
    make_images(tmp_path / "photos", {"ant": 9, "bee": 8})


def hit(moment: str, passes: int, number: int, *words: object, processes: int = 1) -> int:
    """Train with a signal at a moment; returns the exit code."""
    arguments = (moment, passes, int(number), processes - 1, *words)
    return run_children(victim, [str(word) for word in arguments], processes).returncode


def check(variant: str, kills: Sequence[tuple[str, int, signal.Signals]]) -> None:
    """Kill a run again and again, then let it end; nothing may be lost."""
    words = (*VARIANTS[variant], "--output", "out")
    train(*words, "--experiment", "whole")
    mine = (*words, "--experiment", "broken", "--resume", "auto")
    for moment, passes, number in kills:
        assert hit(moment, passes, number, *mine) == EXIT_CODES[number], moment
    assert train(*mine).status == "finished"
    assert_same_run(Path("out/broken"), Path("out/whole"))


@pytest.mark.parametrize(
    ("variant", "kills"),
    [
        ("digits", [("forward", 8, KILL), ("rename", 0, KILL)]),
        ("everything", [("evaluation", 3, TERM), ("summary", 1, KILL)]),
        ("photos", [("update", 5, INT), ("save", 1, KILL)]),
    ],
)
def test_a_killed_run_ends_as_the_unbroken_one(
    variant: str, kills: list[tuple[str, int, signal.Signals]]
) -> None:
    check(variant, kills)


# How often a moment comes in a run, at least: a kill falls on a random one of them.
_TIMES = {
    "forward": 20,
    "update": 9,
    "evaluation": 3,
    "save": 6,
    "copy": 3,
    "link": 4,
    "rename": 3,
    "write": 9,
    "summary": 3,
    "result": 1,
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
def test_killed_at_random(seed: int) -> None:
    draw = random.Random(seed)
    kills = []
    for _ in range(2):
        moment = draw.choice([name for name in MOMENTS if name in _TIMES and name != "result"])
        # At its end a signal finds nothing to stop; only the other kinds of end are to be had.
        number = draw.choice([KILL, KILL, TERM, USR1, INT])
        if moment not in ("forward", "update"):
            number = KILL
        kills.append((moment, draw.randrange(max(1, _TIMES[moment] // 3)), number))
    check(list(VARIANTS)[seed % len(VARIANTS)], kills)


@pytest.mark.slow
@pytest.mark.parametrize("number", [KILL, TERM])
@pytest.mark.parametrize("moment", ["update", "evaluation"])
def test_two_processes_of_which_one_is_hit(moment: str, number: int) -> None:
    words = (*DIGITS, "-b", 128, "--output", "out")
    assert program(*words, "--experiment", "whole", processes=2).returncode == 0
    mine = (*words, "--experiment", "broken", "--resume", "auto")
    assert hit(moment, 3, number, *mine, processes=2) != 0
    assert program(*mine, processes=2).returncode == 0
    assert_same_run(Path("out/broken"), Path("out/whole"))
