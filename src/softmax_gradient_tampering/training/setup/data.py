"""From a configuration to the data set, and to what its loaders need to know."""

import os
from dataclasses import dataclass
from typing import Any

from timm.data import Mixup, resolve_data_config
from torch import nn

from softmax_gradient_tampering.data.dali.loaders import DaliDataset, require_dali
from softmax_gradient_tampering.data.dali.pipeline import DALI_FORMATS
from softmax_gradient_tampering.data.factory import Dataset, SampleDataset, open_dataset
from softmax_gradient_tampering.data.holdout import hold_out
from softmax_gradient_tampering.data.loader import Loader, TrainLoader, WhileWaiting, wait_on
from softmax_gradient_tampering.data.options import DataOptions
from softmax_gradient_tampering.errors import UserError, as_user_error
from softmax_gradient_tampering.models import PUBLISHED_MODELS
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.processes.distributed import Processes
from softmax_gradient_tampering.training.setup.image_check import check_image_files


@dataclass(frozen=True)
class Data:
    """What a run is trained and evaluated on.

    Attributes:
        dataset: the data set.
        train_loader, eval_loader: its loaders.
        image_size: side of the images.
    """

    dataset: Dataset
    train_loader: TrainLoader
    eval_loader: Loader
    image_size: int

    def close(self) -> None:
        """End the loaders' worker processes."""
        self.train_loader.close()
        self.eval_loader.close()


def open_configured_dataset(config: Config, processes: Processes) -> Dataset:
    """The data set that the flags name; the digits where they name none."""
    if config.uses_dali:
        require_dali(processes.device, config.dali_gpu)
    num_channels = config.input_size[0] if config.input_size else 3
    dataset = open_dataset(
        config.data_dir,
        config.dataset,
        config.cifar,
        config.train_split,
        config.val_split,
        num_channels,
    )
    absent = dataset.absent if isinstance(dataset, SampleDataset) else []
    if absent and config.on_bad_image == "stop":
        raise UserError(
            f"{len(absent):,} images are links to what is absent, {absent[0]} for one; restore "
            "that, or leave them out with --on-bad-image skip"
        )
    if config.uses_dali:
        assert isinstance(dataset, SampleDataset)
        checked = check_image_files(config, processes, dataset, DALI_FORMATS)
        dataset = DaliDataset(dataset, checked, config.dali_gpu, config.dali_antialias)
    elif config.on_bad_image == "skip":
        if not isinstance(dataset, SampleDataset):
            raise UserError(f"{dataset.name}: --on-bad-image skip is for images in folders")
        check_image_files(config, processes, dataset)
    if config.holdout:
        dataset = hold_out(dataset, config.holdout, config.seed)
    return dataset


def create_data_options(
    config: Config,
    dataset: Dataset,
    model: nn.Module,
    processes: Processes,
    while_waiting: WhileWaiting = wait_on,
) -> DataOptions:
    """Sizes, normalisation and augmentation; what is not given follows from data and model.

    Raises:
        UserError: values that do not fit the images.
    """
    resolved = _resolve_images(config, dataset, model)
    return DataOptions(
        device=processes.device,
        seed=config.seed,
        batch_size=config.batch_size,
        eval_batch_size=config.batch_size * config.validation_batch_size_multiplier,
        num_workers=min(config.workers, len(os.sched_getaffinity(0))),
        num_processes=processes.number,
        process=processes.rank,
        channels_last=config.channels_last,
        train_interpolation=config.train_interpolation,
        no_aug=config.no_aug,
        scale=config.scale,
        ratio=config.ratio,
        hflip=config.hflip,
        vflip=config.vflip,
        color_jitter=config.color_jitter,
        auto_augment=config.aa,
        aug_splits=config.aug_splits,
        erasing={
            "probability": config.reprob,
            "mode": config.remode,
            "max_count": config.recount,
        },
        resplit=config.resplit,
        mixup=_mixup(config),
        mixup_off_epoch=config.mixup_off_epoch,
        while_waiting=while_waiting,
        **{name: resolved[name] for name in ("input_size", "mean", "std", "interpolation")},
        crop_pct=resolved["crop_pct"],
    )


def _resolve_images(config: Config, dataset: Dataset, model: nn.Module) -> dict[str, Any]:
    """input_size, mean, std, interpolation, crop_pct: as asked, or the data's, or the model's."""
    asked: dict[str, Any] = {
        "input_size": config.input_size,
        "img_size": config.img_size,
        "interpolation": config.interpolation,
        "crop_pct": config.crop_pct,
        "mean": config.mean,
        "std": config.std,
    }
    if config.model in PUBLISHED_MODELS:
        preprocessing = PUBLISHED_MODELS[config.model]
        asked["interpolation"] = asked["interpolation"] or preprocessing.interpolation
        asked["crop_pct"] = asked["crop_pct"] or preprocessing.crop_pct
    if dataset.image_size is not None:
        asked["input_size"] = dataset.image_size
    if dataset.statistics is not None:
        asked["mean"] = asked["mean"] or dataset.statistics[0]
        asked["std"] = asked["std"] or dataset.statistics[1]
    try:
        resolved = resolve_data_config(asked, model=model)
    except AssertionError as error:
        raise UserError(
            f"--mean {config.mean} --std {config.std}: one value, or one for every channel"
        ) from error
    num_channels = resolved["input_size"][0]
    for name in ("mean", "std"):
        values = resolved[name]
        if len(values) != num_channels:  # grey images and a model of colour ones: the average
            resolved[name] = (sum(values) / len(values),) * num_channels
    return resolved


def create_loaders(dataset: Dataset, options: DataOptions) -> Data:
    """A data set with its loaders.

    Raises:
        UserError: it has too few samples for the processes of the run.
    """
    train_loader = dataset.train_loader(options)
    eval_loader = dataset.evaluation_loader(options)
    if not sum(train_loader.batch_sizes):
        raise UserError(
            f"{dataset.name}: {dataset.num_train} training samples are too few for "
            f"{options.num_processes} processes; use fewer, or turn mixing off"
        )
    return Data(dataset, train_loader, eval_loader, options.input_size[-1])


def _mixup(config: Config) -> Mixup | None:
    if not config.is_mixing:
        return None
    with as_user_error("--mixup or --cutmix"):
        return Mixup(
            mixup_alpha=config.mixup,
            cutmix_alpha=config.cutmix,
            cutmix_minmax=config.cutmix_minmax,
            prob=config.mixup_prob,
            switch_prob=config.mixup_switch_prob,
            mode=config.mixup_mode,
            label_smoothing=config.smoothing,
            num_classes=config.num_classes,
        )
