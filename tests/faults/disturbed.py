"""train.py in a child process, with a fault in it: of a signal, a disk, a worker or the memory.

`disturbed` is given the fault as JSON before the words of the command line. A fault happens at the
call of a function that has passed unharmed so often, so that it can be caused again.
"""

import errno
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from tests.faults.processes import children
from tests.faults.victim import arm
from tests.training.children import train_py

# What a disk can fail at: a new file, its end, its name, its removal.
CALLS = ("open", "fsync", "replace", "link", "unlink")
ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
_PAUSE_S = 0.2


def disturbed(words: Sequence[str]) -> None:
    """Run train.py with a fault; the child of one rank is hit."""
    fault, *rest = words
    settings = json.loads(fault)
    if settings.pop("rank", 0) == int(os.environ["RANK"]):
        KINDS[settings.pop("kind")](**settings)
    sys.argv = ["train.py", *rest]
    train_py(rest)


def _none() -> None:
    """Nothing happens."""


def _signal(moment: str, passes: int, number: int) -> None:
    """A signal to the process."""
    arm(moment, passes, lambda: os.kill(os.getpid(), number))


def _worker(passes: int, stops_first: bool) -> None:
    """A loader worker is killed, perhaps after it was stopped for a moment."""

    def act() -> None:
        workers = children(os.getpid())
        if stops_first:
            os.kill(workers[-1], signal.SIGSTOP)
            threading.Timer(_PAUSE_S, kill_if_there, (workers[-1],)).start()
        else:
            os.kill(workers[0], signal.SIGKILL)

    arm("update", passes, act)


def kill_if_there(pid: int) -> None:
    """Kill a process that may have ended by itself, as a worker has whose batches are made."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _timer(seconds: float, number: int) -> None:
    """A signal at any moment."""

    def wait() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), number)

    threading.Thread(target=wait, daemon=True).start()


def _disk(call: str, passes: int, code: int, stays: bool) -> None:
    """A call of the system for a file in the run folder fails, once or from then on."""
    original: Callable[..., Any] = getattr(os, call)
    calls = 0

    def fail(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        path = Path(f"/proc/self/fd/{args[0]}" if call == "fsync" else args[0]).resolve()
        writes = call != "open" or (len(args) > 1 and args[1] & os.O_CREAT)
        if "broken" in path.parts and writes:
            calls += 1
            if calls == passes + 1 or (stays and calls > passes):
                raise OSError(code, os.strerror(code), str(path))
        return original(*args, **kwargs)

    setattr(os, call, fail)


def _size(moment: str, passes: int, num_bytes: int) -> None:
    """From a moment on no file gets larger than this: a write fails in the middle of it."""

    def act() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))

    arm(moment, passes, act)


def _memory(moment: str, passes: int) -> None:
    """The device has no more memory."""

    def act() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    arm(moment, passes, act)


KINDS: dict[str, Callable[..., None]] = {
    "none": _none,
    "signal": _signal,
    "worker": _worker,
    "timer": _timer,
    "disk": _disk,
    "size": _size,
    "memory": _memory,
}
