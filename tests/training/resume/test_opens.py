"""A checkpoint is opened once when a run resumes."""

import os
import sys
from collections import Counter

import pytest

from tests.training.runs import train

WORDS = ("--epochs", 3, "--output", "out", "--max-steps", 13)
# Of the checkpoints that were opened for reading; None while nobody counts.
opened: Counter[str] | None = None


def count(event: str, arguments: tuple[object, ...]) -> None:
    if opened is not None and event == "open":
        path, _, flags = arguments
        is_read = isinstance(flags, int) and flags & os.O_ACCMODE == os.O_RDONLY
        if is_read and str(path).endswith(".pth.tar"):
            opened[str(path)] += 1


@pytest.fixture(scope="module", autouse=True)
def _hook() -> None:
    sys.addaudithook(count)  # it stays for as long as the process


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--experiment", "a", "--resume", "auto"), {"last", "recovery-2-13"}),
        (
            ("--experiment", "a", "--resume", "out/a/recovery-2-13.pth.tar"),
            {"last", "recovery-2-13"},
        ),
        (("--experiment", "b", "--resume", "out/a/recovery-2-13.pth.tar"), {"recovery-2-13"}),
        (("--experiment", "a", "--validate", "--resume", "out/a/last.pth.tar"), {"last"}),
        (("--experiment", "a", "--validate", "--resume", "auto"), {"last", "recovery-2-13"}),
    ],
    ids=["auto", "of the same folder", "of another folder", "validated", "validated, auto"],
)
def test_every_checkpoint_is_opened_once(words: tuple[str, ...], expected: set[str]) -> None:
    global opened
    train(*WORDS, "--experiment", "a")
    opened = Counter()
    try:
        train(*WORDS, *words)
        assert opened == {f"out/a/{name}.pth.tar": 1 for name in expected}
    finally:
        opened = None
