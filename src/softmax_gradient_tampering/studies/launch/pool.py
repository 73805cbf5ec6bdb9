"""A pool of worker processes that train one small run after another, imports paid once."""

import atexit
import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from softmax_gradient_tampering.errors import UserError, first_line
from softmax_gradient_tampering.studies.launch.cost import RunCost, try_run
from softmax_gradient_tampering.studies.launch.devices import use_devices
from softmax_gradient_tampering.training.config.fields import Config

_GRACE_S = 60.0  # for a step, and the recovery checkpoint after it
_END_S = 5.0
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux


class Ended(NamedTuple):
    """A run that is over.

    Attributes:
        key: what it was started under.
        error: why it failed, in one line; empty where it did not.
        traceback: of an error that is not the user's.
        cost: of a run that was tried.
    """

    key: str
    error: str = ""
    traceback: str = ""
    cost: RunCost | None = None


class WorkerPool:
    """Worker processes, each with a run or idle; see `Ended`.

    Args:
        num_workers: processes.
        num_threads: of torch in each.
        devices: the GPUs that each of them sees; none for all that there are.
    """

    def __init__(self, num_workers: int, num_threads: int, devices: Sequence[str] = ()) -> None:
        slots = devices or [""] * num_workers
        self._workers = [_Worker(num_threads, slot) for slot in slots]

    @property
    def num_idle(self) -> int:
        return sum(worker.key is None for worker in self._workers)

    def start(self, key: str, config: Config, is_trial: bool = False) -> None:
        """Begin a run in an idle worker; of a trial, a moment of it, to know what it costs."""
        idle = next(worker for worker in self._workers if worker.key is None)
        idle.start(key, config, is_trial)

    def wait(self, timeout_s: float) -> list[Ended]:
        """The runs that have ended, at the latest after a time."""
        busy = [worker for worker in self._workers if worker.key is not None]
        if not busy:
            time.sleep(timeout_s)
            return []
        ready = wait([handle for worker in busy for handle in worker.handles], timeout_s)
        return [worker.end() for worker in busy if any(h in ready for h in worker.handles)]

    def stop(self) -> None:
        """End the workers, in the middle of their runs if need be; what they wrote is whole."""
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.join()


class _Worker:
    """One worker process, and the run that it is at."""

    def __init__(self, num_threads: int, devices: str) -> None:
        self.key: str | None = None
        self._num_threads = num_threads
        self._devices = devices
        self._process: Any = None  # made when there is something to do

    def _open(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, self._num_threads, self._devices)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        # Ctrl-C reaches all processes of a terminal. The child's is held back until it ignores it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    @property
    def handles(self) -> list[Connection | int]:
        return [self._connection, self._process.sentinel]

    def start(self, key: str, config: Config, is_trial: bool) -> None:
        if self._process is None or not self._process.is_alive():
            self._open()
        self.key = key
        try:
            self._connection.send((config, is_trial))
        except OSError:  # it has just died, idle
            self._open()
            self._connection.send((config, is_trial))

    def end(self) -> Ended:
        """How the run went, which is over, or whether its process is."""
        key, self.key = self.key or "", None
        try:
            # Where a process that it has started outlives it, the pipe is open, and nothing comes.
            if self._connection.poll():
                return Ended(key, *self._connection.recv())
        except (EOFError, OSError):
            pass
        self._end_process()
        code = self._process.exitcode
        return Ended(key, f"its worker process ended with exit code {code}")

    def terminate(self) -> None:
        if self._process is not None and self._process.is_alive():
            self._process.terminate()

    def join(self) -> None:
        if self._process is not None:
            self._end_process()
            self._connection.close()

    def _end_process(self) -> None:
        """Wait for the process to end, and end it; one that a dead disk holds is left to it."""
        self._process.join(_GRACE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(_END_S)


def _work(connection: Connection, num_threads: int, devices: str) -> None:
    """Train what comes through the connection, until it is closed or a signal stops a run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    end_with_parent()  # in a wait for a batch, too
    if devices:
        use_devices(devices)
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 the process's own, to its end
    warnings.simplefilter("ignore")  # said once, where the study was planned

    import torch

    from softmax_gradient_tampering.training.run import run

    gc.freeze()  # what is imported stays: no run is held up by a look for garbage in it
    atexit.register(gc.unfreeze)  # libraries complain of what is left when the process ends
    torch.set_num_threads(num_threads)
    leave_with_parent = _leave_with(os.getppid())
    while True:
        try:
            config, is_trial = connection.recv()
        except (EOFError, OSError):  # the parent is gone
            return
        error = details = ""
        cost = None
        try:
            if is_trial:
                cost = try_run(config)
            elif run(config, True, leave_with_parent).exit_code:
                return  # stopped by a signal: so is the worker
        except UserError as mistake:
            error = str(mistake)
        except Exception as bug:
            error, details = f"{type(bug).__name__}: {first_line(bug)}", traceback.format_exc()
        try:
            connection.send((error, details, cost))
        except OSError:  # the parent is gone
            return


def end_with_parent() -> None:
    """Have the system end this process with its parent, who holds the claim on the cell."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def _leave_with(parent: int) -> Callable[[], None]:
    """Called after every batch: without a parent nobody holds the cell's claim any more."""

    def leave_with_parent() -> None:
        if os.getppid() != parent:
            os._exit(1)

    return leave_with_parent
