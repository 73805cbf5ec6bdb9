"""Sample order and random numbers as pure functions of (seed, epoch, index).

Nothing here has a state: a run does not depend on the number of loader workers, it
resumes at any batch without replaying data, and two runs of one seed are pairs.
"""

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CPU = torch.device("cpu")
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def counter_hash(*counters: int) -> int:
    """64 random bits that depend on the counters alone (splitmix64, chained)."""
    state = 0
    for counter in counters:
        state = (state ^ (counter & _MASK)) + _GOLDEN & _MASK
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state


def counter_uniforms(seed: int, epoch: int, indices: Tensor, num: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) of every sample: (len(indices), num) float64."""
    start = np.uint64(counter_hash(seed, epoch))
    rows = np.asarray(indices, dtype=np.uint64)[:, None] * np.uint64(num)
    state: NDArray[Any] = (rows + np.arange(num, dtype=np.uint64)) * np.uint64(_GOLDEN) + start
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return np.asarray(state >> np.uint64(11), dtype=np.float64) * 2.0**-53


def seed_generators(*counters: int, device: torch.device = CPU) -> None:
    """Seed the generators of python, numpy and torch, which image transforms draw from."""
    bits = counter_hash(*counters)
    random.seed(bits)
    np.random.seed(bits & 0xFFFFFFFF)
    seed_torch(bits, device)


def seed_torch(bits: int, device: torch.device) -> None:
    """Seed torch's generators of the CPU and of the device in use.

    The numbers are those of torch.manual_seed, which for every kind of device that is not in
    use writes down a stack trace: a fifth of a small net's step.
    """
    torch.default_generator.manual_seed(bits)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(bits)


def epoch_order(num_samples: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch: a permutation (num_samples,) of int64."""
    generator = torch.Generator().manual_seed(counter_hash(seed, epoch))
    return torch.randperm(num_samples, generator=generator)


@dataclass(frozen=True)
class BatchPlan:
    """How an epoch's order is cut into batches and shared among processes.

    Batch k of the epoch is the same set of samples for any number of processes as long
    as batch_size * num_processes is. The processes' shares of a batch are of one size, so
    that the mean of their gradients is the gradient of the batch; of a last, smaller batch
    up to `num_processes * multiple - 1` samples are left out for that. Shares of one sample,
    of which batch norm can make nothing, are left out too where there are other batches.

    Args:
        num_samples: size of the data set.
        batch_size: batch size of a process.
        num_processes: number of processes.
        drop_last: leave out the last batch if it is not full, unless it is the only one.
        multiple: every process's share is a multiple of this (2 for mixup).
        taken: samples at the order's beginning that batches of another size have taken.
    """

    num_samples: int
    batch_size: int
    num_processes: int = 1
    drop_last: bool = False
    multiple: int = 1
    taken: int = 0

    def sizes(self) -> list[int]:
        """The size of a process's share of every batch of an epoch."""
        num_full, share, last = self._shares
        return [share] * num_full + [last] * (last > 0)

    @cached_property
    def _shares(self) -> tuple[int, int, int]:
        """The number of full batches, a process's share of one, and of the last batch, or 0."""
        num_full, rest = divmod(self.num_samples - self.taken, self._stride)
        share = self.batch_size // self.multiple * self.multiple
        last = rest // (self.num_processes * self.multiple) * self.multiple
        if (num_full or self.taken) and (self.drop_last or last == 1):
            last = 0
        return num_full, share, last

    @property
    def _stride(self) -> int:
        """Samples of the order from one batch to the next."""
        return self.batch_size * self.num_processes

    def __len__(self) -> int:
        num_full, _, last = self._shares
        return num_full + (last > 0)

    def taken_by(self, num_batches: int) -> int:
        """Samples of the order that are behind the first batches; all of them, if those are all."""
        if num_batches >= len(self):
            return self.num_samples
        return self.taken + num_batches * self._stride

    def batch(self, order: Tensor, number: int, process: int) -> Tensor:
        """The sample indices of a process's share of batch `number`."""
        num_full, share, last = self._shares
        size = share if number < num_full else last
        start = self.taken + number * self._stride + process * size
        return order[start : start + size]


def evaluation_shard(num_samples: int, num_processes: int, process: int) -> range:
    """The samples that a process evaluates: every sample once, no padding."""
    return range(process, num_samples, num_processes)
