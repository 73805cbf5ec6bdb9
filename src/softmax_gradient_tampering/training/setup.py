"""From a configuration to the objects of a run: the only file that knows them all."""

import logging
import os
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.data import Mixup, resolve_data_config
from timm.layers import convert_splitbn_model
from timm.loss import JsdCrossEntropy
from timm.models import get_pretrained_cfg, model_parameters
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from softmax_gradient_tampering.data import DataOptions, Dataset, Loader, open_dataset
from softmax_gradient_tampering.data.order import counter_hash
from softmax_gradient_tampering.errors import UserError, as_user_error
from softmax_gradient_tampering.loss import TamperedCrossEntropyLoss
from softmax_gradient_tampering.models import PUBLISHED_MODELS, create_model
from softmax_gradient_tampering.training.checkpoint import load_checkpoint
from softmax_gradient_tampering.training.config import Config
from softmax_gradient_tampering.training.distributed import Processes
from softmax_gradient_tampering.training.loop import Clipping, LossFn, Trainer
from softmax_gradient_tampering.training.optimizer import create_optimizer
from softmax_gradient_tampering.training.precision import Precision, resolve_dtype
from softmax_gradient_tampering.training.schedule import Schedule

logger = logging.getLogger(__name__)


@dataclass
class Setup:
    """The objects of a run, made from a resolved configuration.

    Attributes:
        config: with model, classes and the like filled in.
        processes: this process among those of the run.
        dataset: what is trained on.
        train_loader, eval_loader: its loaders.
        model: the bare model, whose state is saved.
        ema: its average, or None.
        trainer: what trains it.
        schedule: of the learning rate.
        image_size: side of the images.
    """

    config: Config
    processes: Processes
    dataset: Dataset
    train_loader: Loader
    eval_loader: Loader
    model: nn.Module
    ema: ModelEmaV3 | None
    trainer: Trainer
    schedule: Schedule

    image_size: int

    @property
    def alpha(self) -> float:
        """The exponent in force: 1 where tampering is off."""
        return self.config.modify_softmax or 1.0


def set_up(config: Config, processes: Processes) -> Setup:
    """Make the objects of a run.

    Raises:
        UserError: the data, the model, or an option is not to be had.
    """
    dataset = _open_dataset(config)
    if dataset.name == "digits" and processes.device.type == "cpu":
        torch.set_num_threads(1)  # nets of this size lose by threads, badly on a busy machine
    config = resolve(config, dataset)
    torch.manual_seed(counter_hash(config.seed))
    model = _create_model(config, dataset).to(processes.device)
    data_options = _data_options(config, dataset, model, processes)
    _check_fit(config, model, data_options)
    loaders = dataset.train_loader(data_options), dataset.evaluation_loader(data_options)
    if not sum(loaders[0].batch_sizes):
        raise UserError(
            f"{dataset.name}: {dataset.num_train} training samples are too few for "
            f"{processes.number} processes; use fewer, or turn mixing off"
        )
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    ema = None
    if config.model_ema:
        device = torch.device("cpu") if config.model_ema_force_cpu else None
        ema = ModelEmaV3(model, decay=config.model_ema_decay, device=device)
    optimizer = create_optimizer(config, model)
    dtype = resolve_dtype(config.amp or config.native_amp, config.amp_dtype, processes.device)
    trainer = Trainer(
        model=_wrap(config, model, processes),
        optimizer=optimizer,
        loss_fn=create_loss(config),
        precision=Precision(processes.device, dtype),
        seed=config.seed,
        rank=processes.rank,
        accumulation=config.grad_accum_steps,
        clipping=_clipping(config, model),
        ema=None if ema is None else (ema, model),
    )
    with as_user_error(f"--sched {config.sched} or an option of it"):
        schedule = Schedule(config, optimizer)
    if (config.start_epoch or 0) >= schedule.num_epochs:
        raise UserError(
            f"--start-epoch {config.start_epoch}: the run's {schedule.num_epochs} epochs count "
            "from 0; start earlier or give more --epochs"
        )
    size = data_options.input_size[-1]
    return Setup(config, processes, dataset, *loaders, model, ema, trainer, schedule, size)


def resolve(config: Config, dataset: Dataset) -> Config:
    """Fill in what the data decides: the model and the number of classes."""
    if config.num_classes is not None and config.num_classes < dataset.num_classes:
        raise UserError(
            f"--num-classes {config.num_classes}: {dataset.name} has labels up to "
            f"{dataset.num_classes - 1}; give at least {dataset.num_classes}, or leave it out"
        )
    if dataset.num_classes == 0 and config.num_classes is None:
        raise UserError(f"{dataset.name}: its classes cannot be counted; give --num-classes")
    if dataset.num_classes == 1:
        raise UserError(f"{dataset.name}: one class only; a classifier needs at least two")
    if dataset.image_size is not None and (config.img_size or config.input_size):
        size = "x".join(map(str, dataset.image_size[1:]))
        raise UserError(
            f"--img-size and --input-size: the images of {dataset.name} are {size} and are not "
            "resized; leave them out"
        )
    if dataset.image_size is not None and config.aug_splits:
        raise UserError(f"--aug-splits needs images in folders; {dataset.name} is kept in memory")
    if dataset.image_size is not None and config.aug_splits:
        raise UserError(f"--aug-splits needs images in folders; {dataset.name} is kept in memory")
    default_model = "resnet20" if config.cifar else "resnet18"
    if dataset.name == "digits":
        default_model = "digits_mlp"
    return replace(
        config,
        model=config.model or default_model,
        num_classes=config.num_classes or dataset.num_classes,
    )


def create_loss(config: Config) -> LossFn:
    """The training loss; --modify-softmax 0 is the ordinary cross-entropy."""
    smoothing = (
        0.0 if config.is_mixing else config.smoothing
    )  # timm's mixup smooths the targets itself
    if config.jsd:
        jsd: LossFn = JsdCrossEntropy(num_splits=config.aug_splits, smoothing=smoothing)
        return jsd
    if config.modify_softmax > 1:
        warnings.warn(
            f"--modify-softmax {config.modify_softmax} is above 1: it sharpens the gradient's "
            "probabilities; the published values are 0.05 to 0.92",
            stacklevel=2,
        )
    loss: nn.Module = nn.CrossEntropyLoss(label_smoothing=smoothing)
    if config.modify_softmax:
        loss = TamperedCrossEntropyLoss(config.modify_softmax, label_smoothing=smoothing)
    return loss


def _open_dataset(config: Config) -> Dataset:
    num_channels = config.input_size[0] if config.input_size else 3
    return open_dataset(
        config.data_dir,
        config.dataset,
        config.cifar,
        config.train_split,
        config.val_split,
        num_channels,
    )


def _create_model(config: Config, dataset: Dataset) -> nn.Module:
    assert config.model is not None
    settings: dict[str, Any] = {
        "pretrained": config.pretrained,
        "num_classes": config.num_classes,
        "drop_rate": config.drop or None,
        "drop_path_rate": config.drop_path or config.drop_connect,
        "drop_block_rate": config.drop_block,
        "global_pool": config.gp,
    }
    size = dataset.image_size or config.input_size
    if size:
        settings["in_chans"] = size[0]
    pretrained_cfg = get_pretrained_cfg(config.model, allow_unregistered=True)
    if pretrained_cfg is not None and pretrained_cfg.fixed_input_size:
        settings["img_size"] = config.img_size or (size[-1] if size else None)
    model = create_model(config.model, config.zero_init_last, **settings)
    _set_batch_norm(config, model)
    if config.initial_checkpoint:
        load_weights(model, load_checkpoint_weights(config.initial_checkpoint), config)
    if config.split_bn:
        model = convert_splitbn_model(model, max(config.aug_splits, 2))
    return model


def _check_fit(config: Config, model: nn.Module, data: DataOptions) -> None:
    """Pass one blank image through the model, to refuse a size that it does not take."""
    channels, height, width = data.input_size
    image = torch.zeros(1, channels, height, width, device=data.device)
    model.eval()
    size = f"{channels}x{height}x{width}"
    with torch.inference_mode(), as_user_error(f"--model {config.model} takes no {size} images"):
        model(image)
    model.train()


def load_checkpoint_weights(path: str) -> dict[str, Tensor]:
    """The weights in a checkpoint: the averaged ones where it holds them."""
    from pathlib import Path

    checkpoint = load_checkpoint(Path(path))
    weights: dict[str, Tensor] = checkpoint.get("state_dict_ema") or checkpoint["state_dict"]
    return weights


def load_weights(model: nn.Module, weights: dict[str, Tensor], config: Config) -> None:
    """Load weights, saying in one line where they do not fit.

    Raises:
        UserError: they are another model's.
    """
    weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    own = model.state_dict()
    missing, unknown = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    shapes = [
        f"{name} is {tuple(weights[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    problems = [f"it lacks {name}" for name in missing]
    problems += [f"it has {name}" for name in unknown] + shapes
    if problems:
        more = f" and {len(problems) - 1} more differences" if len(problems) > 1 else ""
        raise UserError(
            f"the checkpoint does not fit {config.model} with {config.num_classes} classes: "
            f"{problems[0]}{more}; give its --model and --num-classes"
        )
    model.load_state_dict(weights)


def _set_batch_norm(config: Config, model: nn.Module) -> None:
    momentum, eps = (0.01, 1e-3) if config.bn_tf else (None, None)
    momentum = momentum if config.bn_momentum is None else config.bn_momentum
    eps = eps if config.bn_eps is None else config.bn_eps
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = module.momentum if momentum is None else momentum
            module.eps = module.eps if eps is None else eps


def _wrap(config: Config, model: nn.Module, processes: Processes) -> nn.Module:
    """The model as it is called in training: synchronised, compiled, over all processes."""
    if config.sync_bn:
        if processes.device.type != "cuda":
            raise UserError("--sync-bn needs GPUs: torch has no synchronised batch norm on a CPU")
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if config.torchcompile:
        model.compile()
    if processes.number == 1:
        return model
    devices = [processes.device] if processes.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices)


def _clipping(config: Config, model: nn.Module) -> Clipping | None:
    if config.clip_grad is None:
        return None
    # Adaptive clipping leaves the classifier out, as in its paper (arXiv 2102.06171).
    parameters = list(model_parameters(model, exclude_head=config.clip_mode == "agc"))
    return Clipping(config.clip_grad, config.clip_mode, parameters)


def _data_options(
    config: Config, dataset: Dataset, model: nn.Module, processes: Processes
) -> DataOptions:
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
        **{name: resolved[name] for name in ("input_size", "mean", "std", "interpolation")},
        crop_pct=resolved["crop_pct"],
    )


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
