"""From options to data sets, and from data sets to loaders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from timm.data import create_transform

from softmax_gradient_tampering.data.folder.image_folder import open_folder
from softmax_gradient_tampering.data.folder.labelled_files import LabelledFiles
from softmax_gradient_tampering.data.folder.loaders import (
    SampleEvaluationLoader,
    SampleTrainLoader,
)
from softmax_gradient_tampering.data.folder.samples import Samples
from softmax_gradient_tampering.data.folder.splits import opening
from softmax_gradient_tampering.data.folder.timm_sets import open_timm_dataset
from softmax_gradient_tampering.data.loader import Loader, TrainLoader
from softmax_gradient_tampering.data.memory.cifar import load_cifar
from softmax_gradient_tampering.data.memory.digits import load_digits
from softmax_gradient_tampering.data.memory.loaders import (
    Augmentation,
    Images,
    MemoryEvaluationLoader,
    MemoryTrainLoader,
)
from softmax_gradient_tampering.data.options import DataOptions
from softmax_gradient_tampering.errors import UserError, as_user_error

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # (mean, std) of the pixels

# Of the sets' own training images.
_DIGITS_STATISTICS = ((0.3046,), (0.3747,))
_CIFAR_STATISTICS = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


class Dataset(Protocol):
    """A training and a validation set.

    Attributes:
        name: what it is, in a few words.
        num_classes: classes of the training labels; 0 where they cannot be counted.
        class_names: of these, in the order of the labels; none where they have none.
        num_train, num_val: samples.
        image_size: (C, H, W) where all images have one, else None.
        statistics: (mean, std) where the set has its own, else None.
        num_bad: image files left out because they cannot be read; None where the files were
            not checked beforehand.
    """

    name: str
    num_classes: int
    class_names: tuple[str, ...]
    num_train: int
    num_val: int
    image_size: tuple[int, int, int] | None
    statistics: Statistics | None
    num_bad: int | None

    def count_classes(self, is_training: bool) -> list[int] | None:
        """Samples of each class of a split; None where their labels are not known beforehand."""

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
        self.num_bad: int | None = None
        self.class_names = self.train.classes
        self.num_classes = len(self.class_names)
        self.num_train, self.num_val = len(self.train.labels), len(self.val.labels)
        channels, height, width = self.train.images.shape[1:]
        self.image_size: tuple[int, int, int] | None = (channels, height, width)

    def count_classes(self, is_training: bool) -> list[int]:
        split = self.train if is_training else self.val
        return count_labels(split.labels, self.num_classes)

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
    """See `Dataset`; read by worker processes, a last batch that is not full left out.

    Attributes:
        absent: image files that are links to what is not there.
    """

    def __init__(self, name: str, splits: tuple[Any, Any], mode: str) -> None:
        self.name = name
        self.train, self.val = splits
        self.mode = mode
        self.statistics: Statistics | None = None
        self.image_size: tuple[int, int, int] | None = None
        self.class_names = class_names(self.train)
        self.num_classes = _count_classes(self.train)
        self.num_train, self.num_val = len(self.train), len(self.val)
        self.num_bad: int | None = None
        self.absent: list[str] = []

    @property
    def files(self) -> tuple[LabelledFiles, LabelledFiles] | None:
        """The image files of both splits; None for sets that are not made of files."""
        are_files = isinstance(self.train, LabelledFiles) and isinstance(self.val, LabelledFiles)
        return (self.train, self.val) if are_files else None

    def count_classes(self, is_training: bool) -> list[int] | None:
        split = self.train if is_training else self.val
        labels = getattr(split, "targets", None)
        if isinstance(split, LabelledFiles):
            labels = split.labels
        return None if labels is None else count_labels(labels, self.num_classes)

    def keep_files(self, train: LabelledFiles, val: LabelledFiles) -> None:
        """Leave out all files but these of `files`."""
        self.num_bad = self.num_train - len(train) + self.num_val - len(val)
        self.train, self.val = train, val
        self.num_train, self.num_val = len(train), len(val)

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
        were_checked = self.num_bad is not None
        samples = Samples(
            self.train, transforms, self.mode, options.seed, options.aug_splits, were_checked
        )
        return SampleTrainLoader(samples, options)

    def evaluation_loader(self, options: DataOptions) -> Loader:
        transform: Callable[[Any], Any] = create_transform(
            options.input_size,
            interpolation=options.interpolation,
            mean=options.mean,
            std=options.std,
            crop_pct=options.crop_pct,
            use_prefetcher=True,
        )
        were_checked = self.num_bad is not None
        samples = Samples(self.val, (transform,), self.mode, seed=None, were_checked=were_checked)
        return SampleEvaluationLoader(samples, options)


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
        with opening(f"--data_dir {root}"):
            splits = load_cifar(cifar, root, train_split, val_split)
        return MemoryDataset(f"CIFAR-{cifar}", splits, _CIFAR_STATISTICS, pad=4)
    if root is None and not dataset:
        return MemoryDataset("digits", load_digits(), _DIGITS_STATISTICS, pad=0)
    mode = "L" if num_channels == 1 else "RGB"
    if dataset and not (root and root.is_dir() and _is_folder(dataset)):
        root = root or Path()
        splits = open_timm_dataset(dataset, root, train_split, val_split, mode)
        return SampleDataset(dataset, splits, mode)
    assert root is not None
    opened = open_folder(root, train_split, val_split)
    folder = SampleDataset(str(root), (opened.train, opened.val), mode)
    folder.absent = opened.absent
    return folder


def _is_folder(name: str) -> bool:
    """Whether timm takes a name for an image folder: any that names no source of data sets."""
    source, _, rest = name.lower().rpartition("/")
    return not source or (source == "torch" and rest in ("folder", "image_folder"))


def class_names(split: Any) -> tuple[str, ...]:
    """The classes of a split, in the order of their labels; none where it does not name them."""
    if isinstance(split, LabelledFiles):
        return split.classes
    labels = getattr(getattr(split, "reader", None), "class_to_idx", None)
    if labels:
        return tuple(str(name) for name in sorted(labels, key=lambda name: labels[name]))
    names = getattr(split, "classes", None) or ()
    return tuple(str(name[0] if isinstance(name, tuple) else name) for name in names)


def untested_classes(dataset: Dataset) -> list[int]:
    """The labels of which there is no validation sample; none where labels are not known."""
    counts = dataset.count_classes(is_training=False)
    return [label for label, number in enumerate(counts or ()) if not number]


def count_labels(labels: Any, num_classes: int) -> list[int]:
    """How often each class is among labels."""
    counts: list[int] = torch.as_tensor(labels).bincount(minlength=num_classes).tolist()
    return counts


def _count_classes(split: Any) -> int:
    names = class_names(split)
    if names:
        return len(names)
    labels = getattr(split, "targets", None)
    return 0 if labels is None else int(max(labels)) + 1
