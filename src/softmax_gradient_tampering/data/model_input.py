"""From a uint8 batch to the model's input: device, normalisation, erasing, mixing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from softmax_gradient_tampering.data.loader import Batch
from softmax_gradient_tampering.data.order import seed_generators
from softmax_gradient_tampering.data.transfer import to_device


@dataclass
class ModelInput:
    """Makes a Batch of uint8 images and labels, on the device.

    Erasing draws from f(seed, epoch, index) for every sample, mixing from
    f(seed, epoch, first index) for every batch.

    Args:
        mean: of every channel, of pixels in [0, 1].
        std: of every channel, likewise.
        device: where the model is.
        channels_last: memory format of the images.
        seed: the run's seed.
        erasing: timm's RandomErasing, in training.
        mixup: timm's Mixup, in training.
        mixup_off_epoch: first epoch without mixing; 0 for never.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    channels_last: bool = False
    seed: int = 0
    erasing: RandomErasing | None = None
    mixup: Mixup | None = None
    mixup_off_epoch: int = 0

    def __post_init__(self) -> None:
        shape = (1, -1, 1, 1)
        self._mean = torch.tensor(self.mean, device=self.device).mul(255).view(shape)
        self._std = torch.tensor(self.std, device=self.device).mul(255).view(shape)

    def __call__(self, images: Tensor, labels: Tensor, epoch: int, indices: Tensor) -> Batch:
        """images (n, C, H, W) uint8, labels (n,), the samples' indices (n,)."""
        images = self._normalise(to_device(images, self.device))
        return self._erased_and_mixed(images, to_device(labels, self.device), indices, epoch)

    def batches(
        self, images: Tensor, labels: Tensor, epoch: int, indices: Sequence[Tensor]
    ) -> Iterator[Batch]:
        """The same for batches that lie one after another, each by its samples' indices.

        What is done to all images alike is done to all at once: of small ones calls count.
        """
        labels = to_device(labels, self.device)
        images = self._normalise(to_device(images, self.device))
        sizes = [len(of_batch) for of_batch in indices]
        for batch in zip(images.split(sizes), labels.split(sizes), indices, strict=True):
            yield self._erased_and_mixed(*batch, epoch)

    def _erased_and_mixed(
        self, images: Tensor, labels: Tensor, indices: Tensor, epoch: int
    ) -> Batch:
        if self.erasing is not None:
            self._erase(images, epoch, indices)
        targets = labels
        if self.mixup is not None:
            self.mixup.mixup_enabled = not 0 < self.mixup_off_epoch <= epoch
            seed_generators(self.seed, epoch, int(indices[0]), 2, device=self.device)
            images, targets = self.mixup(images, labels)
        return Batch(images, targets, labels)

    def _normalise(self, images: Tensor) -> Tensor:
        if not self.channels_last or images.shape[1] == 1:
            layout = torch.channels_last if self.channels_last else torch.contiguous_format
            images = images.to(torch.float32, memory_format=layout)
            return images.sub_(self._mean).div_(self._std)
        # The same numbers, in rows of pixels: with three values at a time a CPU takes half as
        # long again.
        images = images.to(torch.float32, memory_format=torch.channels_last)
        rows = images.permute(0, 2, 3, 1).flatten(2)
        width = images.shape[3]
        rows.sub_(self._mean.flatten().repeat(width)).div_(self._std.flatten().repeat(width))
        return images

    def _erase(self, images: Tensor, epoch: int, indices: Tensor) -> None:
        assert self.erasing is not None
        num_clean = 0
        if self.erasing.num_splits > 1:  # the first split of the batch stays clean
            num_clean = len(images) // self.erasing.num_splits
        for number in range(num_clean, len(images)):
            split, sample = divmod(number, len(indices))
            counters = (self.seed, epoch, int(indices[sample]), 1, split)
            seed_generators(*counters, device=self.device)
            self.erasing(images[number])
