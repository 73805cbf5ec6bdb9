"""From options to data sets, and from data sets to loaders."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from timm.data import Mixup, create_transform
from timm.data.random_erasing import RandomErasing

from softmax_gradient_tampering.data.cifar import load_cifar
from softmax_gradient_tampering.data.digits import load_digits
from softmax_gradient_tampering.data.folder import open_folder, open_timm_dataset
from softmax_gradient_tampering.data.loader import Loader, TrainLoader
from softmax_gradient_tampering.data.memory import (
    Augmentation,
    Images,
    MemoryEvaluationLoader,
    MemoryTrainLoader,
)
from softmax_gradient_tampering.data.model_input import ModelInput
from softmax_gradient_tampering.data.order import BatchPlan
from softmax_gradient_tampering.data.samples import (
    SampleEvaluationLoader,
    Samples,
    SampleTrainLoader,
)
from softmax_gradient_tampering.errors import UserError, as_user_error

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # (mean, std) of the pixels

# Of the sets' own training images.
_DIGITS_STATISTICS = ((0.3046,), (0.3747,))
_CIFAR_STATISTICS = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """What the loaders need to know; the training flags of the same names say more."""

    device: torch.device
    seed: int
    batch_size: int
    eval_batch_size: int
    num_workers: int
    num_processes: int = 1
    process: int = 0
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    channels_last: bool = False
    train_interpolation: str = "random"
    no_aug: bool = False
    scale: tuple[float, ...] = (0.08, 1.0)
    ratio: tuple[float, ...] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    vflip: float = 0.0
    color_jitter: float = 0.4
    auto_augment: str | None = None
    aug_splits: int = 0
    erasing: dict[str, Any] = field(default_factory=dict)
    resplit: bool = False
    mixup: Mixup | None = None
    mixup_off_epoch: int = 0

    def plan(self, num_samples: int, drop_last: bool) -> BatchPlan:
        """The batches of an epoch; mixing needs pairs."""
        return BatchPlan(
            num_samples,
            min(self.batch_size, max(1, num_samples // self.num_processes)),
            self.num_processes,
            drop_last,
            multiple=2 if self.mixup else 1,
        )

    def model_input(self, is_training: bool) -> ModelInput:
        erasing = None
        if is_training and self.erasing.get("probability") and not self.no_aug:
            num_splits = (self.aug_splits or 2) if self.resplit else 0
            erasing = RandomErasing(**self.erasing, num_splits=num_splits, device=self.device)
        return ModelInput(
            self.mean,
            self.std,
            self.device,
            self.channels_last,
            self.seed,
            erasing,
            self.mixup if is_training else None,
            self.mixup_off_epoch,
        )


class Dataset(Protocol):
    """A training and a validation set.

    Attributes:
        name: what it is, in a few words.
        num_classes: classes of the training labels; 0 where they cannot be counted.
        num_train, num_val: samples.
        image_size: (C, H, W) where all images have one, else None.
        statistics: (mean, std) where the set has its own, else None.
    """

    name: str
    num_classes: int
    num_train: int
    num_val: int
    image_size: tuple[int, int, int] | None
    statistics: Statistics | None

    def train_loader(self, options: DataOptions) -> TrainLoader: ...

    def evaluation_loader(self, options: DataOptions) -> Loader: ...


class MemoryDataset:
    """See `Dataset`; held in memory, its last small batch included."""

    def __init__(
        self,
        name: str,
        splits: tuple[Images, Images],
        statistics: Statistics,
        pad: int,
    ) -> None:
        self.name = name
        self.train, self.val = splits
        self.statistics: Statistics | None = statistics
        self.pad = pad
        self.num_classes = len(self.train.classes)
        self.num_train, self.num_val = len(self.train.labels), len(self.val.labels)
        channels, height, width = self.train.images.shape[1:]
        self.image_size: tuple[int, int, int] | None = (channels, height, width)

    def train_loader(self, options: DataOptions) -> TrainLoader:
        augmentation = Augmentation()
        if self.pad and not options.no_aug:
            augmentation = Augmentation(self.pad, options.hflip, options.vflip)
        plan = options.plan(self.num_train, drop_last=False)
        model_input = options.model_input(is_training=True)
        return MemoryTrainLoader(self.train, plan, augmentation, model_input, options.process)

    def evaluation_loader(self, options: DataOptions) -> Loader:
        return MemoryEvaluationLoader(
            self.val,
            options.eval_batch_size,
            options.model_input(is_training=False),
            options.num_processes,
            options.process,
        )


class SampleDataset:
    """See `Dataset`; read by worker processes, a last batch that is not full left out."""

    def __init__(self, name: str, splits: tuple[Any, Any], mode: str) -> None:
        self.name = name
        self.train, self.val = splits
        self.mode = mode
        self.statistics: Statistics | None = None
        self.image_size: tuple[int, int, int] | None = None
        self.num_classes = _count_classes(self.train)
        self.num_train, self.num_val = len(self.train), len(self.val)

    def train_loader(self, options: DataOptions) -> TrainLoader:
        with as_user_error("--aa, --scale, --ratio, --color-jitter or --img-size"):
            transforms = create_transform(
                options.input_size,
                is_training=True,
                no_aug=options.no_aug,
                scale=options.scale,
                ratio=options.ratio,
                hflip=options.hflip,
                vflip=options.vflip,
                color_jitter=options.color_jitter,
                auto_augment=options.auto_augment,
                interpolation=options.train_interpolation,
                mean=options.mean,
                std=options.std,
                use_prefetcher=True,  # the transform ends in uint8; ModelInput does the rest
                separate=options.aug_splits > 0,
            )
        transforms = transforms if isinstance(transforms, tuple) else (transforms,)
        samples = Samples(self.train, transforms, self.mode, options.seed, options.aug_splits)
        plan = options.plan(self.num_train, drop_last=True)
        model_input = options.model_input(is_training=True)
        return SampleTrainLoader(samples, plan, model_input, options.num_workers, options.process)

    def evaluation_loader(self, options: DataOptions) -> Loader:
        transform: Callable[[Any], Any] = create_transform(
            options.input_size,
            interpolation=options.interpolation,
            mean=options.mean,
            std=options.std,
            crop_pct=options.crop_pct,
            use_prefetcher=True,
        )
        return SampleEvaluationLoader(
            Samples(self.val, (transform,), self.mode, seed=None),
            options.eval_batch_size,
            options.model_input(is_training=False),
            options.num_workers,
            options.num_processes,
            options.process,
        )


def open_dataset(
    data_dir: str | None,
    dataset: str = "",
    cifar: int = 0,
    train_split: str = "train",
    val_split: str = "validation",
    num_channels: int = 3,
) -> Dataset:
    """Open the data that the flags name; the digits where they name none.

    Raises:
        UserError: the data is missing or not usable; the message says which and why.
    """
    if cifar and dataset:
        raise UserError(f"--cifar {cifar} and --dataset {dataset}: name one data set")
    root = Path(data_dir).expanduser() if data_dir else None
    if cifar:
        if root is None:
            raise UserError(f"--cifar {cifar} needs --data_dir, the folder of its files")
        splits = load_cifar(cifar, root, train_split, val_split)
        return MemoryDataset(f"CIFAR-{cifar}", splits, _CIFAR_STATISTICS, pad=4)
    if root is None and not dataset:
        return MemoryDataset("digits", load_digits(), _DIGITS_STATISTICS, pad=0)
    mode = "L" if num_channels == 1 else "RGB"
    if dataset:
        root = root or Path()
        opened = open_timm_dataset(dataset, root, train_split, val_split, mode)
        return SampleDataset(dataset, opened, mode)
    assert root is not None
    return SampleDataset(str(root), open_folder(root, train_split, val_split, mode), mode)


def _count_classes(split: Any) -> int:
    reader = getattr(split, "reader", None)
    classes = getattr(reader, "class_to_idx", None) or getattr(split, "classes", None)
    if classes:
        return len(classes)
    labels = getattr(split, "targets", None)
    return 0 if labels is None else int(max(labels)) + 1
