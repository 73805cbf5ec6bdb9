"""Small data sets held in memory as uint8, taken and augmented a batch at a time."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from softmax_gradient_tampering.data.loader import Batch, Loader, TrainLoader
from softmax_gradient_tampering.data.model_input import ModelInput
from softmax_gradient_tampering.data.order import (
    BatchPlan,
    counter_uniforms,
    epoch_order,
    evaluation_shard,
)
from softmax_gradient_tampering.data.transfer import keep_near, to_device

_ENOUGH = 2**17  # values of images that are made at once: few calls for small ones, little memory


class Images(NamedTuple):
    """images (N, C, H, W) uint8, labels (N,) int64, the classes' names."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]


class Augmentation(NamedTuple):
    """Random translation by up to `pad` pixels, and flips."""

    pad: int = 0
    hflip: float = 0.0
    vflip: float = 0.0


class MemoryTrainLoader(TrainLoader):
    """Training batches; see `Loader`. The augmentation is f(seed, epoch, index)."""

    def __init__(
        self,
        data: Images,
        plan: BatchPlan,
        augmentation: Augmentation,
        model_input: ModelInput,
        process: int = 0,
    ) -> None:
        self.data = data
        self.plan = plan
        self.augmentation = augmentation
        self.model_input = model_input
        self.process = process
        self.batch_sizes = plan.sizes()
        self.num_samples = sum(self.batch_sizes) * plan.num_processes
        pad, device = augmentation.pad, model_input.device
        padded = F.pad(data.images, (pad,) * 4) if pad else data.images
        self._padded, self._labels = keep_near(padded, device), keep_near(data.labels, device)

    def __len__(self) -> int:
        return len(self.batch_sizes)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        seed = self.model_input.seed
        order = epoch_order(self.plan.num_samples, seed, epoch)
        for numbers in _at_once(range(start, len(self)), self.batch_sizes, self.data):
            parts = [self.plan.batch(order, number, self.process) for number in numbers]
            indices = torch.cat(parts)
            images, labels = self._augment(indices, seed, epoch), _take(self._labels, indices)
            yield from self.model_input.batches(images, labels, epoch, parts)

    def names(self, epoch: int, number: int) -> list[str]:
        order = epoch_order(self.plan.num_samples, self.model_input.seed, epoch)
        indices = self.plan.batch(order, number, self.process)
        return [f"sample {index}" for index in indices.tolist()]

    def _augment(self, indices: Tensor, seed: int, epoch: int) -> Tensor:
        pad, hflip, vflip = self.augmentation
        if not (pad or hflip or vflip):
            return _take(self._padded, indices)
        height, width = self.data.images.shape[-2:]
        uniforms = torch.from_numpy(counter_uniforms(seed, epoch, indices, 4))
        moved = (uniforms[:, :2] * (2 * pad + 1)).long()
        flipped = (uniforms[:, 2:] < torch.tensor([vflip, hflip], dtype=torch.float64)).long()
        device = self._padded.device
        drawn = to_device(torch.cat([indices[:, None], moved, flipped], dim=1), device)
        samples, top, left, is_vflip, is_hflip = drawn[:, :, None].unbind(1)
        rows = top + torch.arange(height, device=device)
        columns = left + torch.arange(width, device=device)
        rows = torch.where(is_vflip == 1, rows.flip(1), rows)
        columns = torch.where(is_hflip == 1, columns.flip(1), columns)
        crop = (samples[:, :, None], slice(None), rows[:, :, None], columns[:, None, :])
        return self._padded[crop].permute(0, 3, 1, 2)  # the slice is last: (n, H, W, C)


class MemoryEvaluationLoader(Loader):
    """Evaluation batches of this process's shard, in order; see `Loader`."""

    def __init__(
        self,
        data: Images,
        batch_size: int,
        model_input: ModelInput,
        num_processes: int = 1,
        process: int = 0,
    ) -> None:
        self.data = data
        device = model_input.device
        self._images, self._labels = keep_near(data.images, device), keep_near(data.labels, device)
        self.model_input = model_input
        self.num_samples = len(data.labels)
        shard = evaluation_shard(self.num_samples, num_processes, process)
        self._batches = torch.tensor(shard, dtype=torch.int64).split(batch_size) if shard else ()
        self.batch_sizes = [len(batch) for batch in self._batches]

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for numbers in _at_once(range(start, len(self)), self.batch_sizes, self.data):
            parts = self._batches[numbers.start : numbers.stop]
            indices = torch.cat(parts)
            images, labels = _take(self._images, indices), _take(self._labels, indices)
            yield from self.model_input.batches(images, labels, epoch, parts)


def _at_once(numbers: range, batch_sizes: Sequence[int], data: Images) -> Iterator[range]:
    """Batches, by their numbers, in runs of as many as are made at once."""
    num_values = max(batch_sizes, default=1) * data.images.shape[1:].numel()
    num = max(1, _ENOUGH // max(1, num_values))
    for first in numbers[::num]:
        yield numbers[first - numbers.start : first - numbers.start + num]


def _take(of: Tensor, indices: Tensor) -> Tensor:
    """Rows of a set, where it is kept; the indices are on the CPU."""
    return of[to_device(indices, of.device)]
