"""One program in a run folder at a time."""

import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path

from softmax_gradient_tampering.errors import UserError

FILE_NAME = ".lock"
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
        self._made = [path for path in (folder, *folder.parents) if not path.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = self._take()
        except OSError as error:
            raise UserError(f"--output {folder}: cannot be made ({error})") from error

    def release(self) -> None:
        """Let go, leaving no trace; folders that were made for nothing go too."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        for folder in self._made:
            if any(folder.iterdir()):
                break
            folder.rmdir()

    def _take(self) -> int:
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                has_locks = error.errno not in _WITHOUT_LOCKS
                holder = _read(descriptor)
                if has_locks or _may_be_alive(holder):
                    os.close(descriptor)
                    raise UserError(_refusal(self._path, holder)) from error
            if _is_at(descriptor, self._path):  # not unlinked by one who let go just now
                break
            os.close(descriptor)
        words = {"host": socket.gethostname(), "process": os.getpid(), "time": time.time()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(words).encode(), 0)
        return descriptor


def _read(descriptor: int) -> dict[str, object]:
    try:
        content = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _may_be_alive(holder: dict[str, object]) -> bool:
    process = holder.get("process")
    if holder.get("host") != socket.gethostname() or not isinstance(process, int):
        return bool(holder)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def _refusal(path: Path, holder: dict[str, object]) -> str:
    host, process = holder.get("host", "unknown"), holder.get("process", "unknown")
    return (
        f"{path.parent}: another program is at work in it, process {process} on host {host}; "
        "wait for it or stop it, or choose another --experiment"
        f" (if it is gone for certain, delete {path})"
    )
