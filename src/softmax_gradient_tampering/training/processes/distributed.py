"""The processes of a run: how they find each other, and what they exchange."""

import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from softmax_gradient_tampering.errors import UserError, first_line
from softmax_gradient_tampering.training.processes.launch import environment_number

T = TypeVar("T")
_GRACE_S = 0.2
_PATIENCE_S = 60.0
_LAST_PORT = 65_535


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Attributes:
        number: how many there are; one without torchrun.
        rank: this one's number, from 0. Rank 0 alone writes files and prints.
        device: where this process computes.
    """

    number: int
    rank: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def device_name(self) -> str:
        """What computes here, for a person."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"{self.device.type} ({platform.processor() or platform.machine()})"

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place."""
        if self.number > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        if self.number == 1:
            return [value]
        values: list[Any] = [None] * self.number
        dist.all_gather_object(values, value)
        return values

    def most(self, numbers: list[int]) -> list[int]:
        """The largest of each number over all processes; they exchange them on the CPU."""
        if self.number == 1:
            return numbers
        largest = torch.tensor(numbers)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return [int(value) for value in largest]

    def all_agree(self, condition: bool) -> bool:
        """Whether a condition holds in all processes."""
        return self.most([int(not condition)]) == [0]

    def from_first(self, value: T) -> T:
        """Rank 0's value."""
        if self.number == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def share_buffers(self, model: nn.Module, reduce: bool) -> None:
        """Give every process the same running statistics: their mean, or rank 0's."""
        if self.number == 1:
            return
        for buffer in model.buffers():
            shared = buffer.to(self.device)  # an averaged model may be kept elsewhere
            if reduce and buffer.is_floating_point():
                dist.all_reduce(shared)
                shared /= self.number
            else:
                dist.broadcast(shared, src=0)
            buffer.copy_(shared)

    def close(self) -> None:
        if self.number > 1 and dist.is_initialized():
            # The backend's threads need the interpreter lock to let go of the last tensors, and
            # its destructor waits for them while holding it: seen to hang with torch 2.9.
            time.sleep(_GRACE_S)
            dist.destroy_process_group()


def start_processes(device_name: str | None) -> Processes:
    """Read torchrun's environment and join the process group.

    Raises:
        UserError: the device does not exist here, or the environment is not torchrun's.
    """
    number, rank = environment_number("WORLD_SIZE", 1, smallest=1), environment_number("RANK", 0)
    local_rank = environment_number("LOCAL_RANK", 0)
    if number > 1 and not dist.is_initialized():
        _check_environment(number, rank)
    device = _find_device(device_name, local_rank)
    if number > 1 and not dist.is_initialized():
        # Agreements between processes go by the CPU, so that no step waits for a GPU.
        with _said_after(_PATIENCE_S, _waiting_line(number, rank)):
            _join("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return Processes(number, rank, device)


def _check_environment(number: int, rank: int) -> None:
    """Refuse to look for other processes where the environment does not say where they are."""
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise UserError(
                f"WORLD_SIZE={number} in the environment needs {name}, which is not set; start "
                "the processes with torchrun, or unset WORLD_SIZE for a run of one",
                is_local=True,
            )
    if not 0 < environment_number("MASTER_PORT", 0) <= _LAST_PORT:
        raise UserError(
            f"MASTER_PORT={os.environ['MASTER_PORT']} in the environment: must be a port, from 1 "
            f"to {_LAST_PORT}, the same for all processes",
            is_local=True,
        )
    if rank >= number:
        raise UserError(
            f"RANK={rank} in the environment: must be less than WORLD_SIZE={number}; start the "
            "processes with torchrun, or number them from 0",
            is_local=True,
        )


def _waiting_line(number: int, rank: int) -> str:
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    return (
        f"process {rank} of {number} has waited {_PATIENCE_S:g} s for the others, at {place}. Are "
        "all of them started? Hosts with several networks need GLOO_SOCKET_IFNAME (and "
        "NCCL_SOCKET_IFNAME) to name the one that they share"
    )


@contextmanager
def _said_after(seconds: float, line: str) -> Iterator[None]:
    """Print a line where the context lasts longer."""
    timer = threading.Timer(seconds, lambda: print(line, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _join(backend: str) -> None:
    """Join the process group.

    Raises:
        UserError: the port is taken, or not all processes came in torch's time for it.
    """
    try:
        _join_of_this_start(backend)
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        if isinstance(error, dist.DistNetworkError) and "listen" not in str(error):
            raise  # another process is lost
        raise UserError(
            f"MASTER_PORT={os.environ['MASTER_PORT']} at {os.environ['MASTER_ADDR']}: the "
            f"processes have not met there ({first_line(error):.200}); start all of them, with "
            "another MASTER_PORT where a program has this one",
            is_local=True,
        ) from error


def _join_of_this_start(backend: str) -> None:
    """Join, after a restart under a name that the lost processes did not use.

    torchrun keeps its store over a restart, with the addresses of the lost processes in it, at
    which new ones would wait for ever. On one node all processes know the number of restarts.
    """
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        dist.init_process_group(backend)
        return
    store, rank, number = next(rendezvous("env://"))
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = PrefixStore(f"restart-{restarts}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=number)


def _find_device(name: str | None, local_rank: int) -> torch.device:
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "cuda":
            if device.index is None:
                device = torch.device("cuda", local_rank)
            torch.cuda.set_device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(f"--device {name}: not usable here ({first_line(error)})") from error
    return device
