"""Who works on a cell: a lock file that one process makes, and keeps young while it works.

A lock is held while its file is younger than STALE_S, unless the process that made it is seen
to be dead. Ages are measured against the clock of the file system, which all machines share.
"""

import contextlib
import json
import os
import socket
import threading
import time
from pathlib import Path

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.files.owner import is_dead, this_process
from softmax_gradient_tampering.files.text import read_record

HEARTBEAT_S = 20.0
STALE_S = 10 * HEARTBEAT_S
_BREAKING_S = 60.0
_MAX_BYTES = 2**16


def claim(lock: Path) -> bool:
    """Make the lock, over a stale one too; returns whether it is now this process's.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        if _is_stale(lock):
            _remove_stale(lock)
        _make(lock)
    except FileExistsError:
        return False
    except OSError as error:
        raise UserError(f"{lock}: cannot be made ({error}); nothing was trained") from error
    return True


def _make(lock: Path) -> None:
    descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(json.dumps({**this_process(), "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}))
    except OSError:  # the disk is full
        lock.unlink(missing_ok=True)
        raise


def refresh(lock: Path) -> None:
    """Make the lock young: its process is at work."""
    # It may have been taken for stale, after a long pause. Where it cannot be changed, others find
    # the cell free one day, and the lock of its run folder taken.
    with contextlib.suppress(OSError):
        os.utime(lock)


def release(lock: Path) -> None:
    """Remove the lock, if it is this process's still and no other has found it stale."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        owner = json.loads(read_record(lock, _MAX_BYTES))
        if isinstance(owner, dict) and owner.items() >= this_process().items():
            lock.unlink()


def is_held(lock: Path) -> bool:
    """Whether a process is at work under the lock."""
    return lock.exists() and not _is_stale(lock)


def _is_stale(lock: Path) -> bool:
    """Whether the lock is there, and nobody is at work under it."""
    try:
        made = lock.stat().st_mtime
    except FileNotFoundError:
        return False
    try:
        owner = json.loads(read_record(lock, _MAX_BYTES) or "{}")
    except FileNotFoundError:
        return False
    except (OSError, ValueError, RecursionError):
        owner = {}  # just being written, or not one of this program's: its age decides
    return _now(lock) - made >= STALE_S or is_dead(owner)


def _remove_stale(lock: Path) -> None:
    """Remove a stale lock, one process at a time.

    Without the guard a second process could find the lock stale, be overtaken by a first one
    that removes it and makes its own, and then remove that one. For the same reason a lock that
    is gone is not removed: by then it may be there again, another's.
    """
    guard = lock.with_suffix(".breaking")
    try:
        os.close(os.open(guard, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        try:
            if _now(guard) - guard.stat().st_mtime > _BREAKING_S:  # its maker died in here
                guard.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        return
    try:
        if _is_stale(lock):
            lock.unlink(missing_ok=True)
    finally:
        guard.unlink(missing_ok=True)


def _now(beside: Path) -> float:
    """The time by the clock of the file system."""
    looker = f"{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"  # others look too
    probe = beside.with_name(f".now-{looker}")
    try:
        probe.write_bytes(b"")
        return probe.stat().st_mtime
    except OSError:  # one may look at a study that one may not write to
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
