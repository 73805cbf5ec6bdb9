"""Full disks and damaged files."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.checkpoint.content import load_checkpoint
from softmax_gradient_tampering.training.records.run_files import read_summary
from tests.training.runs import assert_same_run, train

WORDS = ("--epochs", 3, "--output", "out")


@pytest.mark.parametrize("writes", range(3, 22, 3))
def test_a_full_disk_ends_the_run_and_what_was_there_stays(
    monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    train(*WORDS, "--experiment", "whole")
    left = writes

    def fsync(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(descriptor)

    original = os.fsync
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(UserError, match=r"No space left on device.*--resume auto"):
            train(*WORDS, "--experiment", "broken")
    for path in Path("out/broken").glob("*.pth.tar"):
        load_checkpoint(path)
    assert list(Path("out/broken").glob(".*.tmp")) == []
    summary = Path("out/broken/summary.csv")
    if summary.exists():
        numbers = [row["epoch"] for row in read_summary(summary)]
        assert numbers == list(range(1, len(numbers) + 1))
    train(*WORDS, "--experiment", "broken", "--resume", "auto")
    assert_same_run(Path("out/broken"), Path("out/whole"))


def flip(path: Path, place: int) -> None:
    """Change one bit, as a failing disk does, behind the back of other names of the file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_one_wrong_bit_is_noticed_and_the_checkpoint_before_is_used(
    share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    train(*WORDS, "--experiment", "whole")
    train(*WORDS, "--experiment", "broken", "--max-steps", 14)
    Path("out/broken/recovery-2-14.pth.tar").unlink()
    last = Path("out/broken/last.pth.tar")
    weights = next(iter(load_checkpoint(last)["state_dict"].values())).numpy().tobytes()
    flip(last, last.read_bytes().index(weights) + int(share * len(weights)))
    train(*WORDS, "--experiment", "broken", "--resume", "auto")
    assert "passed over: out/broken/last.pth.tar: damaged" in capsys.readouterr().out
    assert_same_run(Path("out/broken"), Path("out/whole"))


def test_where_all_are_damaged_the_best_is_the_last_resort() -> None:
    train(*WORDS, "--experiment", "broken", "--max-steps", 14)
    for name in ("recovery-2-14", "last", "previous"):
        Path(f"out/broken/{name}.pth.tar").write_bytes(b"PK damaged")
    train(*WORDS, "--experiment", "broken", "--resume", "auto")
    rows: list[Any] = [row["epoch"] for row in read_summary(Path("out/broken/summary.csv"))]
    assert rows == [1, 2, 3]
