"""Small data sets held in memory as uint8, taken and augmented a batch at a time."""

from collections.abc import Iterator
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
        pad = augmentation.pad
        self._padded = F.pad(data.images, (pad,) * 4) if pad else data.images

    def __len__(self) -> int:
        return len(self.batch_sizes)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        seed = self.model_input.seed
        order = epoch_order(self.plan.num_samples, seed, epoch)
        for number in range(start, len(self)):
            indices = self.plan.batch(order, number, self.process)
            images = self._augment(indices, seed, epoch)
            yield self.model_input(images, self.data.labels[indices], epoch, indices)

    def names(self, epoch: int, number: int) -> list[str]:
        order = epoch_order(self.plan.num_samples, self.model_input.seed, epoch)
        indices = self.plan.batch(order, number, self.process)
        return [f"sample {index}" for index in indices.tolist()]

    def _augment(self, indices: Tensor, seed: int, epoch: int) -> Tensor:
        pad, hflip, vflip = self.augmentation
        if not (pad or hflip or vflip):
            return self._padded[indices]
        height, width = self.data.images.shape[-2:]
        uniforms = torch.from_numpy(counter_uniforms(seed, epoch, indices, 4))
        top, left = (uniforms[:, :2] * (2 * pad + 1)).long().unbind(1)
        rows = (top[:, None] + torch.arange(height)).expand(-1, height)
        columns = left[:, None] + torch.arange(width)
        rows = torch.where(uniforms[:, 2:3] < vflip, rows.flip(1), rows)
        columns = torch.where(uniforms[:, 3:4] < hflip, columns.flip(1), columns)
        crop = (indices[:, None, None], slice(None), rows[:, :, None], columns[:, None, :])
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
        self.model_input = model_input
        self.num_samples = len(data.labels)
        shard = evaluation_shard(self.num_samples, num_processes, process)
        self._batches = torch.tensor(shard, dtype=torch.int64).split(batch_size) if shard else ()
        self.batch_sizes = [len(batch) for batch in self._batches]

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for indices in self._batches[start:]:
            yield self.model_input(
                self.data.images[indices], self.data.labels[indices], epoch, indices
            )
