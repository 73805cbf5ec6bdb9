"""Data sets read a sample at a time, by worker processes, with timm's transforms."""

import signal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from PIL import Image
from timm.data.loader import fast_collate
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from softmax_gradient_tampering.data.folder.image_file import (
    open_image,
    read_failure,
    read_image,
)
from softmax_gradient_tampering.data.folder.labelled_files import LabelledFiles
from softmax_gradient_tampering.data.loader import Batch
from softmax_gradient_tampering.data.model_input import ModelInput
from softmax_gradient_tampering.data.order import (
    BatchPlan,
    epoch_order,
    evaluation_shard,
    seed_generators,
)
from softmax_gradient_tampering.errors import UserError

Key = tuple[int, int]  # (epoch, index)


class Unreadable(NamedTuple):
    """A sample that could not be read, sent back by a worker in its place."""

    name: str
    reason: str


class Samples(Dataset[Any]):
    """Transformed samples of a map-style data set; the augmentation is f(seed, epoch, index).

    Args:
        base: image files, or a data set of timm or torchvision without a transform.
        transforms: applied in turn; with augmentation splits (base, augmentation, final).
        mode: PIL's mode of the images.
        seed: the run's seed, or None where the transform draws no random numbers.
        num_splits: augmentation splits: the clean image and num_splits - 1 augmented ones.
        were_checked: whether bad files were looked for and left out before.
    """

    def __init__(
        self,
        base: Any,
        transforms: tuple[Callable[[Any], Any], ...],
        mode: str,
        seed: int | None,
        num_splits: int = 0,
        were_checked: bool = False,
    ) -> None:
        self.base = base
        self.transforms = transforms
        self.mode = mode
        self.seed = seed
        self.num_splits = num_splits
        self.were_checked = were_checked

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, key: Key) -> Any:
        epoch, index = key
        try:
            image, label = self._read(index)
        except Exception as error:
            # Image decoders raise anything from OSError to SyntaxError.
            return Unreadable(self.name(index), read_failure(error))
        if self.seed is not None:
            seed_generators(self.seed, epoch, index)
        if not self.num_splits:
            return self.transforms[0](image), label
        start, augment, finish = self.transforms
        image = start(image)
        splits = [image] + [augment(image) for _ in range(self.num_splits - 1)]
        return tuple(finish(split) for split in splits), label

    def _read(self, index: int) -> tuple[Image.Image, int]:
        if isinstance(self.base, LabelledFiles):
            path, label = self.base[index]
            with open_image(path) as file:
                return read_image(file, self.mode), label
        if not hasattr(self.base, "reader"):
            image, label = self.base[index]
            return image.convert(self.mode), int(label)
        file, label = self.base.reader[index]
        with file:
            return read_image(file, self.mode), int(label)

    def name(self, index: int) -> str:
        """A sample's file, or its number where it is none."""
        if isinstance(self.base, LabelledFiles):
            return self.base.path(index)
        reader = getattr(self.base, "reader", None)
        return str(reader.filename(index, absolute=True)) if reader else f"sample {index}"


class _Keys:
    """The batch sampler: the keys of an epoch's batches, set anew for every epoch."""

    def __init__(self) -> None:
        self.epoch = 0
        self.batches: list[Tensor] = []

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in self.batches:
            yield [(self.epoch, index) for index in batch.tolist()]

    def __len__(self) -> int:
        return len(self.batches)


class _WorkerPool:
    """A torch DataLoader whose workers live as long as it does."""

    def __init__(self, samples: Samples, model_input: ModelInput, num_workers: int) -> None:
        self.model_input = model_input
        self._were_checked = samples.were_checked
        self._keys = _Keys()
        self._loader = DataLoader(
            samples,
            batch_sampler=self._keys,
            num_workers=num_workers,
            collate_fn=_collate,
            pin_memory=model_input.device.type == "cuda",
            persistent_workers=num_workers > 0,
            worker_init_fn=_leave_signals_to_the_trainer,
        )

    def batches(self, epoch: int, batches: list[Tensor]) -> Iterator[Batch]:
        self._keys.epoch, self._keys.batches = epoch, batches
        for indices, loaded in zip(batches, self._loader, strict=True):
            if isinstance(loaded, Unreadable):
                raise _bad_file(loaded, self._were_checked)
            images, labels = loaded
            yield self.model_input(images, labels, epoch, indices)


class SampleTrainLoader:
    """Training batches; see `Loader`."""

    def __init__(
        self,
        samples: Samples,
        plan: BatchPlan,
        model_input: ModelInput,
        num_workers: int,
        process: int = 0,
    ) -> None:
        self.plan = plan
        self.process = process
        self.batch_sizes = plan.sizes()
        self.num_samples = sum(self.batch_sizes) * plan.num_processes
        self._samples = samples
        self._pool = _WorkerPool(samples, model_input, num_workers)

    def __len__(self) -> int:
        return len(self.batch_sizes)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        order = self._order(epoch)
        numbers = range(start, len(self))
        batches = [self.plan.batch(order, number, self.process) for number in numbers]
        return self._pool.batches(epoch, batches)

    def names(self, epoch: int, number: int) -> list[str]:
        indices = self.plan.batch(self._order(epoch), number, self.process)
        return [self._samples.name(index) for index in indices.tolist()]

    def _order(self, epoch: int) -> Tensor:
        return epoch_order(self.plan.num_samples, self._pool.model_input.seed, epoch)


class SampleEvaluationLoader:
    """Evaluation batches of this process's shard, in order; see `Loader`."""

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        model_input: ModelInput,
        num_workers: int,
        num_processes: int = 1,
        process: int = 0,
    ) -> None:
        self.num_samples = len(samples)
        shard = evaluation_shard(self.num_samples, num_processes, process)
        self._batches = list(torch.tensor(shard).split(batch_size)) if shard else []
        self.batch_sizes = [len(batch) for batch in self._batches]
        self._pool = _WorkerPool(samples, model_input, num_workers)

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        return self._pool.batches(epoch, self._batches[start:])


def _bad_file(found: Unreadable, was_checked: bool) -> UserError:
    if was_checked:
        fix = (
            "it could be read when the files were checked; put it back, or go on without: "
            "--resume auto finds it and leaves it out, but not in the middle of an epoch; if "
            "refused there, go on from last.pth.tar with another --experiment"
        )
    else:
        fix = (
            "repair or remove the file, then go on with --resume; --on-bad-image skip leaves such "
            "files out from the start"
        )
    return UserError(
        f"{found.name}: cannot be read as an image ({found.reason}); {fix}", is_local=True
    )


def _collate(samples: list[Any]) -> Any:
    for sample in samples:
        if isinstance(sample, Unreadable):
            return sample
    return fast_collate(samples)


def _leave_signals_to_the_trainer(_worker: int) -> None:
    """Signals to the whole process group, as by Ctrl-C or a cluster, are for the trainer alone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
