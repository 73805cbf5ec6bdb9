"""A lock that lets one program at a time work in a run folder."""

import errno
import fcntl
import json
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.files.owner import is_dead, this_process

FILE_NAME = ".lock"
_NOT_OURS = "{}: not a lock of this program's but a link, or not a regular file; remove it"
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class FolderLock:
    """A record lock on a file of the run folder, which names the host and the process.

    The system lets go of a record lock when its process ends, however it ends: a lock file that
    nobody holds is stale and is taken over. Child processes do not inherit it, so loader workers
    that outlive a killed trainer for a moment hold nothing. On file systems without locks the
    file's content decides: its process is alive, or on another host and not to be asked.

    Raises:
        UserError: another program is at work in the folder, or it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._made: list[Path] = []
        try:
            self._made = [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = self._take()
            self._status = folder.stat()
        except OSError as error:
            self._remove_folders()
            raise UserError(f"--output {folder}: cannot be made ({error})") from error

    def check(self) -> None:
        """Check that the folder at its path is still the one that was locked.

        Raises:
            UserError: it was moved, removed or replaced, or another program has locked it.
        """
        folder = self._path.parent
        try:
            is_same = os.path.samestat(self._status, folder.stat())
            is_ours = not self._path.exists() or _is_at(self._descriptor, self._path)
        except OSError:
            is_same = is_ours = False
        if not is_same:
            raise UserError(
                f"{folder}: no longer the folder in which the run began: it was moved, removed or "
                "replaced; nothing more is written. If it was moved, --resume auto goes on there",
                is_local=True,
            )
        if not is_ours:
            raise UserError(
                f"{folder}: its lock was removed, and another program has locked it since; "
                "nothing more is written by this one",
                is_local=True,
            )

    def release(self) -> None:
        """Release the lock and remove its file, and the folders made for it if they are empty.

        It never fails: the folder may be gone, or no longer be writable.
        """
        _let_go(self._descriptor, self._path)
        self._remove_folders()

    def _remove_folders(self) -> None:
        for folder in self._made:
            with suppress(OSError):  # it is not empty, or was not made
                folder.rmdir()

    def _take(self) -> int:
        while True:
            descriptor = _open(self._path)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                has_locks = error.errno not in _WITHOUT_LOCKS
                holder = _read(descriptor)
                if has_locks or not _is_stale(holder):
                    os.close(descriptor)
                    raise UserError(_refusal(self._path, holder)) from error
            if _is_at(descriptor, self._path):  # its last holder has not just removed it
                break
            os.close(descriptor)
        content = json.dumps({**this_process(), "time": time.time()})
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, content.encode(), 0)
        except OSError:  # the disk is full
            _let_go(descriptor, self._path)
            raise
        return descriptor


def _open(path: Path) -> int:
    """Open the lock's file, or make it; refuse a link to another file, which would be emptied."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(_NOT_OURS.format(path)) from error
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise UserError(_NOT_OURS.format(path))
    return descriptor


def _let_go(descriptor: int, path: Path) -> None:
    """Remove the lock's file, unless another program has made its own, and close it."""
    with suppress(OSError):
        if _is_at(descriptor, path):
            path.unlink()
    with suppress(OSError):
        os.close(descriptor)


def _read(descriptor: int) -> dict[str, object]:
    try:
        content = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _is_stale(holder: dict[str, object]) -> bool:
    """Whether nobody holds a lock, on a file system that has no locks, by what its file says.

    This process holds none when it asks for one: a file with its number is an earlier one's.
    """
    return (
        not holder or is_dead(holder) or all(holder.get(n) == v for n, v in this_process().items())
    )


def _refusal(path: Path, holder: dict[str, object]) -> str:
    host, process = holder.get("host", "unknown"), holder.get("pid", "unknown")
    return (
        f"{path.parent}: another program is at work in it, process {process} on host {host}; "
        "wait for it or stop it, or choose another --experiment or --output"
        f" (if it is gone for certain, delete {path})"
    )
