"""Full disks and damaged files."""

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.checkpoint.content import load_checkpoint
from softmax_gradient_tampering.training.records.run_files import read_summary
from tests.faults.test_kills import hit
from tests.training.runs import assert_same_run, train

WORDS = ("--epochs", 3, "--output", "out")


@pytest.mark.parametrize("writes", [2, 4, 7, 9, 11, 13, 16, 18, 21])
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


LAST_EPOCH = ("--epochs", 2, "--output", "out")


@pytest.mark.parametrize(
    ("moment", "passes"),
    # The first epoch's checkpoint-1, the last one's previous and last.
    [("link", 0), ("link", 2), ("rename", 1)],
)
@pytest.mark.parametrize("is_damaged", [False, True])
def test_an_epoch_of_which_one_checkpoint_is_left_gets_all_of_them(
    moment: str, passes: int, is_damaged: bool
) -> None:
    train(*LAST_EPOCH, "--experiment", "whole")
    mine = (*LAST_EPOCH, "--experiment", "broken", "--resume", "auto")
    assert hit(moment, passes, signal.SIGKILL, *mine) == -signal.SIGKILL
    last = Path("out/broken/last.pth.tar")
    if is_damaged and last.exists():
        flip(last, last.stat().st_size // 2)
    train(*mine)
    assert_same_run(Path("out/broken"), Path("out/whole"))


@pytest.mark.parametrize("has_recovery", [False, True])
def test_a_damaged_checkpoint_does_not_displace_a_whole_one(has_recovery: bool) -> None:
    train(*WORDS, "--experiment", "broken", "--max-steps", 14)
    if not has_recovery:
        Path("out/broken/recovery-2-14.pth.tar").unlink()
    last = Path("out/broken/last.pth.tar")
    flip(last, last.stat().st_size // 2)
    train(*WORDS, "--experiment", "broken", "--resume", "auto", "--max-steps", 15)
    for path in Path("out/broken").glob("*.pth.tar"):
        load_checkpoint(path)
    assert last.exists() != has_recovery  # which alone holds what came after it


@pytest.mark.parametrize("number", range(4))
def test_a_file_that_cannot_be_removed_is_one_line(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    words = (*WORDS, "--recovery-interval", 2, "--resume", "auto")
    train(*words, "--experiment", "whole")
    removals = iter(range(1000))

    def unlink(path: Any, **options: Any) -> None:
        is_ours = Path(path).parent.name == "broken" and Path(path).suffix != ".tmp"
        if is_ours and next(removals) == number:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        original(path, **options)

    original = os.unlink
    mine = (*words, "--experiment", "broken")
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        with pytest.raises(UserError, match=r"cannot be removed .*--resume auto"):
            train(*mine)
    train(*mine)
    assert_same_run(Path("out/broken"), Path("out/whole"))


def test_where_all_are_damaged_the_best_is_the_last_resort() -> None:
    train(*WORDS, "--experiment", "broken", "--max-steps", 14)
    for name in ("recovery-2-14", "last", "previous"):
        Path(f"out/broken/{name}.pth.tar").write_bytes(b"PK damaged")
    train(*WORDS, "--experiment", "broken", "--resume", "auto")
    rows: list[Any] = [row["epoch"] for row in read_summary(Path("out/broken/summary.csv"))]
    assert rows == [1, 2, 3]
