"""Worker processes that read batches into memory which they share with the trainer.

The trainer and each worker exchange messages of a few bytes over a pipe of their own, and pixels
through memory that both see. A worker that dies is noticed at once, one that hangs blocks nothing
but the batch that it reads, and the system ends all workers with the trainer, however that ends.
"""

import ctypes
import math
import mmap
import multiprocessing
import os
import signal
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from softmax_gradient_tampering.data.folder.samples import Samples, Unreadable
from softmax_gradient_tampering.data.loader import WhileWaiting
from softmax_gradient_tampering.errors import MachineError

T = TypeVar("T")

_NUM_BUFFERS = 2  # of a worker: one is read by the trainer while the other is filled
_POLL_S = 1.0
_LOOK_FOR_TRAINER_S = 5.0
_END_S = 5.0
_NUM_NAMED = 3
_MAX_MESSAGE = 4000  # characters
_SET_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG
_STATES = {"T": "stopped", "D": "waiting for a disk", "S": "sleeping", "R": "running"}
_SIGNAL_NAMES = {int(number): number.name for number in signal.Signals}
# Signals that end a run, to whatever process of it they are sent.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class BatchBuffer:
    """The memory of a batch, which a worker fills and the trainer reads.

    Args:
        capacity: samples of the largest batch.
        num_images: of a sample: the number of augmentation splits, or 1.
        image_size: (C, H, W).
    """

    def __init__(self, capacity: int, num_images: int, image_size: tuple[int, int, int]) -> None:
        rows = capacity * num_images
        self._num_images = num_images
        channels, height, width = image_size
        pixels = _shared_array((rows, height, width, channels), np.uint8)
        self.images = pixels.transpose(0, 3, 1, 2)  # laid out as images are decoded
        self.labels = _shared_array((rows,), np.int64)
        self.indices = _shared_array((capacity,), np.int64)

    def fill(self, samples: Samples, epoch: int, size: int) -> Unreadable | None:
        """Read the samples of `indices`; all first images come before all second ones."""
        for row, index in enumerate(self.indices[:size].tolist()):
            found = samples.read(epoch, index)
            if isinstance(found, Unreadable):
                return found
            images, label = found
            for number, image in enumerate(images):
                self.images[row + number * size] = image
                self.labels[row + number * size] = label
        return None

    def tensors(self, size: int) -> tuple[Tensor, Tensor]:
        """Images and labels of a batch of a size, as views of the memory."""
        rows = size * self._num_images
        return torch.from_numpy(self.images[:rows]), torch.from_numpy(self.labels[:rows])


@dataclass
class _Worker:
    pid: int
    connection: Connection
    buffers: list[BatchBuffer]
    num_pending: int = 0  # batches that it was asked for and has not answered


class WorkerPool:
    """Worker processes that live as long as the pool; they start with the first epoch.

    Args:
        samples: what they read.
        num_workers: how many; 0 reads in the trainer.
        make_buffer: makes the memory of a batch.
        while_waiting: called while a batch is awaited.
    """

    def __init__(
        self,
        samples: Samples,
        num_workers: int,
        make_buffer: Callable[[], BatchBuffer],
        while_waiting: WhileWaiting,
    ) -> None:
        self._samples = samples
        self._num_workers = num_workers
        self._make_buffer = make_buffer
        self._while_waiting = while_waiting
        self._workers: list[_Worker] = []
        self.close = weakref.finalize(self, _end_workers, self._workers, os.getpid())

    def batches(
        self,
        epoch: int,
        batches: Sequence[Tensor],
        consume: Callable[[Tensor, Tensor, Tensor], T],
    ) -> Iterator[T]:
        """Read batches of samples, in order.

        Args:
            epoch: from 0.
            batches: the samples' indices (n,) of every batch.
            consume: makes of images, labels and indices what is yielded; it copies what it
                keeps, because the memory is used again.

        Raises:
            UserError: a sample cannot be read.
            MachineError: a worker has died.
        """
        if not self._num_workers:
            yield from self._read_here(epoch, batches, consume)
            return
        self._start()
        num_ahead = _NUM_BUFFERS * len(self._workers)
        for number in range(min(num_ahead, len(batches))):
            self._ask(number, epoch, batches[number])
        for number, indices in enumerate(batches):
            self._wait_for(number, indices)
            _, buffer = self._place(number)
            batch = consume(*buffer.tensors(len(indices)), indices)
            if number + num_ahead < len(batches):
                self._ask(number + num_ahead, epoch, batches[number + num_ahead])
            yield batch

    def _read_here(
        self, epoch: int, batches: Sequence[Tensor], consume: Callable[[Tensor, Tensor, Tensor], T]
    ) -> Iterator[T]:
        buffer = self._make_buffer()
        for indices in batches:
            buffer.indices[: len(indices)] = indices
            unreadable = buffer.fill(self._samples, epoch, len(indices))
            if unreadable is not None:
                raise self._samples.error(unreadable)
            yield consume(*buffer.tensors(len(indices)), indices)

    def _start(self) -> None:
        """Start the workers; of an earlier epoch that was left, wait for what they still read."""
        while len(self._workers) < self._num_workers:
            buffers = [self._make_buffer() for _ in range(_NUM_BUFFERS)]
            self._workers.append(_fork(self._samples, buffers, self._workers))
        for worker in self._workers:
            while worker.num_pending:
                self._answer(worker, lambda: "a batch of an epoch that was left")

    def _place(self, number: int) -> tuple[_Worker, BatchBuffer]:
        """The worker and the buffer of a batch, by its number."""
        turn, place = divmod(number, len(self._workers))
        worker = self._workers[place]
        return worker, worker.buffers[turn % _NUM_BUFFERS]

    def _ask(self, number: int, epoch: int, indices: Tensor) -> None:
        """Ask a worker for a batch; the message is small enough never to wait for the worker."""
        worker, buffer = self._place(number)
        buffer.indices[: len(indices)] = indices
        try:
            worker.connection.send((worker.buffers.index(buffer), epoch, len(indices)))
        except OSError as error:
            raise self._death(worker) from error
        worker.num_pending += 1

    def _wait_for(self, number: int, indices: Tensor) -> None:
        """Wait until a batch has been read.

        Raises:
            UserError: a sample cannot be read.
        """
        worker, _ = self._place(number)

        def describe() -> str:
            names = [self._samples.name(index) for index in indices[:_NUM_NAMED].tolist()]
            more = f" and {len(indices) - _NUM_NAMED} more" if len(indices) > _NUM_NAMED else ""
            return f"the batch of {', '.join(names)}{more}"

        unreadable = self._answer(worker, describe)
        if unreadable is not None:
            raise self._samples.error(unreadable)

    def _answer(self, worker: _Worker, describe: Callable[[], str]) -> Unreadable | None:
        """A worker's next answer: None, or the sample that it could not read."""
        started = time.monotonic()

        def describe_wait() -> str:
            return f"loader worker {worker.pid} ({_state(worker.pid)}) reads {describe()}"

        while not worker.connection.poll(_POLL_S):
            self._while_waiting(time.monotonic() - started, describe_wait)
        try:
            answer: Unreadable | str | None = worker.connection.recv()
        except (EOFError, OSError) as error:
            raise self._death(worker) from error
        worker.num_pending -= 1
        if isinstance(answer, str):
            raise RuntimeError(f"a loader worker failed:\n{answer}")
        return answer

    def _death(self, worker: _Worker) -> MachineError:
        """What is known of a worker that has died."""
        number = len(self._workers)
        code = _wait_for_end(worker.pid, _END_S)
        ended = "has ended" if code is None else f"has ended with exit code {code}"
        if code is not None:
            self._workers.remove(worker)  # another process may get its number
        if code is not None and code < 0:
            ended = f"was ended by {_SIGNAL_NAMES.get(-code, f'signal {-code}')}"
        return MachineError(
            f"loader worker {worker.pid}, one of {number}, {ended}, probably because "
            "the memory is used up: give fewer --workers, a smaller --batch-size or smaller "
            "images; then go on with --resume auto"
        )


def _shared_array(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array in memory that this process shares with its children; the system frees it."""
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, max(1, num_bytes)), dtype, math.prod(shape)).reshape(shape)


def _fork(samples: Samples, buffers: list[BatchBuffer], others: Sequence[_Worker]) -> _Worker:
    """Start a worker; it shares the memory of the trainer until one of the two writes to it."""
    ours, theirs = multiprocessing.Pipe()
    trainer = os.getpid()
    pid = os.fork()
    if pid:
        theirs.close()
        return _Worker(pid, ours, buffers)
    try:
        for connection in (ours, *(worker.connection for worker in others)):
            connection.close()
        _work(samples, buffers, theirs, trainer)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)  # nothing of the trainer's own end is a worker's to do


def _work(
    samples: Samples, buffers: list[BatchBuffer], connection: Connection, trainer: int
) -> None:
    """Read what is asked for, until the trainer has closed the pipe or is gone."""
    for number in STOP_SIGNALS:  # to a whole process group: they are for the trainer alone
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError, AttributeError):  # where the system has it: it ends a stopped worker too
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    torch.set_num_threads(1)
    while os.getppid() == trainer:
        if not connection.poll(_LOOK_FOR_TRAINER_S):
            continue
        try:
            number, epoch, size = connection.recv()
            answer: Unreadable | str | None
            try:
                answer = buffers[number].fill(samples, epoch, size)
            except Exception:
                # Its end: a message this short is taken at once, or not at all.
                answer = traceback.format_exc()[-_MAX_MESSAGE:]
            connection.send(answer)
        except (EOFError, OSError):
            return


def _state(pid: int) -> str:
    """What a process is doing, as far as the system says it."""
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "in an unknown state"
    return _STATES.get(letter, f"in state {letter}")


def _end_workers(workers: list[_Worker], trainer: int) -> None:
    """End workers for certain: they hold nothing that would have to be put in order."""
    if os.getpid() != trainer:
        return  # another worker's copy of the pool
    for worker in workers:
        with suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)
        worker.connection.close()
    for worker in workers:
        _wait_for_end(worker.pid, _END_S)  # one that waits for a dead disk ends when that answers
    workers.clear()


def _wait_for_end(pid: int, seconds: float) -> int | None:
    """The exit code of a child, negative for a signal; None if it is not known in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            found, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return None
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None
