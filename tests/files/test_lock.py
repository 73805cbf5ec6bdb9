"""One program in a run folder at a time."""

import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.files.lock import FolderLock
from softmax_gradient_tampering.files.owner import this_process
from tests.training.runs import train

# Spawned, not forked: torch's threads do not survive a fork.
SPAWN = multiprocessing.get_context("spawn")


def hold(folder: Path, connection: Connection) -> None:
    FolderLock(folder)
    connection.send("held")
    connection.recv()


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the lock of tmp_path/run until it is killed."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=hold, args=(tmp_path / "run", theirs))
    process.start()
    assert ours.recv() == "held"
    yield process
    process.kill()
    process.join()


def test_a_second_program_is_refused_by_name(tmp_path: Path, holder) -> None:
    place = rf"process {holder.pid} on host {socket.gethostname()}"
    with pytest.raises(UserError, match=rf"run: another program is at work in it, {place}"):
        train("--output", tmp_path, "--experiment", "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_the_lock_of_a_killed_program_is_stale(tmp_path: Path, holder) -> None:
    holder.kill()
    holder.join()
    assert (tmp_path / "run" / ".lock").exists()
    train("--output", tmp_path, "--experiment", "run", "--epochs", 1)
    assert not (tmp_path / "run" / ".lock").exists()


def test_letting_go_leaves_no_trace(tmp_path: Path) -> None:
    FolderLock(tmp_path / "a" / "b").release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_alive", [True, False])
def test_without_file_locks_the_content_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_alive: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    process = os.getppid() if is_alive else 2**22 + 1  # above the largest process number
    (tmp_path / ".lock").write_text(json.dumps(this_process() | {"pid": process}))
    if is_alive:
        with pytest.raises(UserError, match=f"process {process}"):
            FolderLock(tmp_path)
    else:
        FolderLock(tmp_path).release()


@pytest.mark.parametrize("make", [Path.symlink_to, Path.hardlink_to])
def test_a_link_to_another_file_is_refused(
    tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / "run").mkdir()
    make(tmp_path / "run" / ".lock", tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"run/\.lock: not a lock of this program's"):
        FolderLock(tmp_path / "run")
    assert (tmp_path / "elsewhere").read_text() == "precious"


def test_letting_go_of_a_folder_that_is_gone(tmp_path: Path) -> None:
    held = FolderLock(tmp_path / "a" / "b")
    shutil.rmtree(tmp_path / "a")
    held.release()


def test_letting_go_where_nothing_may_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    held = FolderLock(tmp_path / "a")
    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(Path, "rmdir", refuse)
    held.release()


def test_the_lock_of_another_program_is_not_removed(tmp_path: Path) -> None:
    held = FolderLock(tmp_path)
    (tmp_path / ".lock").unlink()
    (tmp_path / ".lock").write_text("another program's")
    held.release()
    assert (tmp_path / ".lock").read_text() == "another program's"


@pytest.mark.parametrize("function", ["pwrite", "open"])
def test_a_start_that_fails_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, function, refuse)
        with pytest.raises(UserError, match=r"a/b: cannot be made .*No space left"):
            FolderLock(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too long"):
        FolderLock(tmp_path / "a" / ("b" * 300))
    assert list(tmp_path.iterdir()) == []
