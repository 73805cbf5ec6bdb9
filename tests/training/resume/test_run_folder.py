"""Which folder a run writes to, and what in it counts."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from softmax_gradient_tampering.errors import UserError
from tests.training.children import run_children, train_py
from tests.training.runs import train

WORDS = ("--epochs", 1, "--output", "out", "--experiment", "a")


@pytest.mark.parametrize("content", [None, "epoch,train_loss\n1,abc\n", "epoch\n1,2,3\n"])
def test_a_finished_run_stays_so_without_its_summary(
    content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    train(*WORDS)
    summary = Path("out/a/summary.csv")
    summary.unlink()
    if content is not None:
        summary.write_text(content)
    result = train(*WORDS, "--resume", "auto")
    assert (result.status, result.rows) == ("already finished", [])
    assert "out/a/summary.csv: not read" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 5000])
def test_a_result_that_is_no_mapping_does_not_finish_a_run(
    content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train(*WORDS)
    Path("out/a/result.json").write_text(content)
    result = train(*WORDS, "--resume", "auto")
    assert (result.status, len(result.rows)) == ("finished", 1)
    assert "result.json: not whole; the run is taken to be unfinished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        *(("--output", name) for name in ("x" * 300, "a/" + "x" * 300, "a\0b", "\ud800")),
        *(("--resume", name) for name in ("x" * 300, "a\0b", "\ud800")),
    ],
)
def test_paths_that_cannot_be_are_one_line_and_leave_nothing(
    flag: str, name: str, own_folder: Path
) -> None:
    with pytest.raises(UserError, match=rf"^{flag} .*(not a path that can be|too long)") as caught:
        train("--epochs", 1, flag, name)
    assert str(caught.value).isprintable()
    assert [path for path in own_folder.rglob("*") if path.name != "output"] == []


def test_a_folder_that_cannot_be_looked_into_is_one_line(
    monkeypatch: pytest.MonkeyPatch, own_folder: Path
) -> None:
    # Permissions do not stop a superuser who runs the tests.
    original = os.stat

    def refuse(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        if str(path) == "out/a/result.json":
            raise PermissionError(13, "Permission denied")
        return original(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr(os, "lstat", lambda path: refuse(path, follow_symlinks=False))
    with pytest.raises(UserError, match=r"--output 'out': not a path .*Permission denied"):
        train(*WORDS, "--resume", "auto")
    assert list(own_folder.iterdir()) == []


def test_what_a_killed_run_was_writing_is_no_run(own_folder: Path) -> None:
    folder = own_folder / "out" / "a"
    folder.mkdir(parents=True)
    (folder / ".new.pth.tar").write_bytes(b"half")
    assert train(*WORDS).status == "finished"
    assert not (folder / ".new.pth.tar").exists()


def test_where_no_checkpoint_is_whole_the_run_says_that_it_starts_anew(
    capsys: pytest.CaptureFixture[str],
) -> None:
    train(*WORDS, "--max-steps", 3)
    for path in Path("out/a").glob("*.pth.tar"):
        path.write_bytes(b"PK damaged")
    assert train(*WORDS, "--resume", "auto").status == "finished"
    assert "out/a: no checkpoint is whole; the run starts anew" in capsys.readouterr().out


@pytest.mark.parametrize("content", ['{"laun', "[]", "\x00"])
def test_a_restart_passes_over_what_other_runs_left(
    content: str, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = own_folder / "out" / "other"
    other.mkdir(parents=True)
    (other / "environment.json").write_text(content)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "xyz")
    assert train("--epochs", 1, "--output", "out").status == "finished"


def _on_a_disk_of_its_own(words: Sequence[str]) -> None:
    os.chdir(f"host{os.environ['RANK']}")
    train_py(words)


@pytest.mark.parametrize(
    ("host", "message"),
    [
        (1, "of process 0, has no checkpoint of this run, and host"),
        (0, "not seen by host"),
    ],
)
def test_a_folder_that_the_hosts_do_not_share_is_not_begun_anew(host: int, message: str) -> None:
    for name in ("host0", "host1"):
        Path(name).mkdir()
    train(*WORDS, "--max-steps", 1)
    shutil.move("out", f"host{host}")
    before = {path: path.read_bytes() for path in Path().glob("host*/out/a/*")}
    done = run_children(_on_a_disk_of_its_own, [*map(str, WORDS), "--resume", "auto"], processes=2)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert {path: path.read_bytes() for path in Path().glob("host*/out/a/*")} == before


@pytest.mark.parametrize("extra", [(), ("--dry-run",), ("--validate",)])
def test_a_folder_given_for_a_checkpoint_is_said_to_hold_checkpoints(
    extra: tuple[str, ...], own_folder: Path
) -> None:
    train(*WORDS)
    with pytest.raises(UserError, match=r"out/a: .*a folder; give a file in it: .*last\.pth\.tar"):
        train("--epochs", 2, "--output", "new", "--resume", "out/a", *extra)
    with pytest.raises(UserError, match=r"out: .*a folder, without a checkpoint in it"):
        train("--epochs", 2, "--output", "new", "--resume", "out", *extra)
    assert not (own_folder / "new" / "a").exists()
