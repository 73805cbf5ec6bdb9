"""From a configuration to the objects of a run: the only file that knows them all."""

import logging
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from timm.layers import convert_splitbn_model
from timm.loss import JsdCrossEntropy
from timm.models import get_pretrained_cfg, model_parameters
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from softmax_gradient_tampering.data.factory import Dataset
from softmax_gradient_tampering.data.loader import Loader, TrainLoader
from softmax_gradient_tampering.data.options import DataOptions
from softmax_gradient_tampering.data.order import counter_hash
from softmax_gradient_tampering.errors import UserError, as_user_error, first_line
from softmax_gradient_tampering.loss import TamperedCrossEntropyLoss
from softmax_gradient_tampering.loss.kernels.selection import check_kernel, describe_kernel
from softmax_gradient_tampering.models import create_model
from softmax_gradient_tampering.training.checkpoint.weights import load_checkpoint_weights
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.measure import predictions
from softmax_gradient_tampering.training.processes.distributed import Processes
from softmax_gradient_tampering.training.setup.data import (
    create_data_options,
    open_configured_dataset,
)
from softmax_gradient_tampering.training.step import equivalence
from softmax_gradient_tampering.training.step.alpha_schedule import AlphaSchedule
from softmax_gradient_tampering.training.step.loop import Clipping, Trainer
from softmax_gradient_tampering.training.step.optimizer import create_optimizer
from softmax_gradient_tampering.training.step.precision import Precision, resolve_dtype
from softmax_gradient_tampering.training.step.schedule import Schedule

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
        alpha_schedule: of alpha.
        image_size: side of the images.
        loss_kernel: what computes the tampered loss, or "torch" where nothing is tampered with.
    """

    config: Config
    processes: Processes
    dataset: Dataset
    train_loader: TrainLoader
    eval_loader: Loader
    model: nn.Module
    ema: ModelEmaV3 | None
    trainer: Trainer
    schedule: Schedule
    alpha_schedule: AlphaSchedule
    image_size: int
    loss_kernel: str

    @property
    def alpha(self) -> float:
        """The exponent in force at the end of the run: 1 where tampering is off."""
        return self.config.alpha_end or self.config.modify_softmax or 1.0


def set_up(config: Config, processes: Processes, dataset: Dataset | None = None) -> Setup:
    """Make the objects of a run.

    Args:
        config: the configuration.
        processes: the run's processes.
        dataset: data of one's own, in place of what the configuration names.

    Raises:
        UserError: the data, the model, or an option is not to be had.
    """
    _check_loss_kernel(config, processes.device)
    dataset = dataset or open_configured_dataset(config, processes)
    if dataset.name == "digits" and processes.device.type == "cpu":
        torch.set_num_threads(1)  # nets of this size lose by threads, badly on a busy machine
    config = resolve(config, dataset)
    torch.manual_seed(counter_hash(config.seed))
    model = _create_model(config, dataset).to(processes.device)
    data_options = create_data_options(config, dataset, model, processes)
    _check_fit(config, model, data_options)
    loaders = dataset.train_loader(data_options), dataset.evaluation_loader(data_options)
    if not sum(loaders[0].batch_sizes):
        raise UserError(
            f"{dataset.name}: {dataset.num_train} training samples are too few for "
            f"{processes.number} processes; use fewer, or turn mixing off"
        )
    dtype = resolve_dtype(config.amp or config.native_amp, config.amp_dtype, processes.device)
    if config.equivalent_to is not None:
        if dtype is torch.float16:
            raise UserError(
                f"--equivalent-to {config.equivalent_to} does not hold in float16: its loss scale "
                "skips other steps; give --amp-dtype bfloat16, or leave --amp out"
            )
        image = equivalence.noise_image(data_options.input_size, processes.device)
        equivalence.scale_head(model, config.equivalent_to, image)
    if config.save_predictions:
        assert config.num_classes is not None
        predictions.check_size(dataset.num_val, config.num_classes)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    ema = None
    if config.model_ema:
        device = torch.device("cpu") if config.model_ema_force_cpu else None
        ema = ModelEmaV3(model, decay=config.model_ema_decay, device=device)
    optimizer = create_optimizer(config, model)
    loss_fn = create_loss(config)
    trainer = Trainer(
        model=_wrap(config, model, processes),
        optimizer=optimizer,
        loss_fn=loss_fn,
        precision=Precision(processes.device, dtype),
        seed=config.seed,
        rank=processes.rank,
        accumulation=config.grad_accum_steps,
        clipping=_clipping(config, model),
        ema=None if ema is None else (ema, model),
        skips_nonfinite=config.on_nonfinite == "skip",
        all_agree=processes.all_agree,
    )
    with as_user_error(f"--sched {config.sched} or an option of it"):
        schedule = Schedule(config, optimizer)
    if (config.start_epoch or 0) >= schedule.num_epochs:
        raise UserError(
            f"--start-epoch {config.start_epoch}: the run's {schedule.num_epochs} epochs count "
            "from 0; start earlier or give more --epochs"
        )
    alphas = AlphaSchedule(config, loss_fn, schedule.num_epochs, processes.device)
    size = data_options.input_size[-1]
    kernel = "torch"
    if isinstance(loss_fn, TamperedCrossEntropyLoss):
        kernel = describe_kernel(config.loss_kernel, processes.device)
    return Setup(
        config, processes, dataset, *loaders, model, ema, trainer, schedule, alphas, size, kernel
    )


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
    default_model = "resnet20" if config.cifar else "resnet18"
    if dataset.name == "digits":
        default_model = "digits_mlp"
    return replace(
        config,
        model=config.model or default_model,
        num_classes=config.num_classes or dataset.num_classes,
    )


def create_loss(config: Config) -> nn.Module:
    """The training loss; --modify-softmax 0 is the ordinary cross-entropy."""
    smoothing = (
        0.0 if config.is_mixing else config.smoothing
    )  # timm's mixup smooths the targets itself
    if config.jsd:
        jsd: nn.Module = JsdCrossEntropy(num_splits=config.aug_splits, smoothing=smoothing)
        return jsd
    if config.modify_softmax > 1:
        warnings.warn(
            f"--modify-softmax {config.modify_softmax} is above 1: it sharpens the gradient's "
            "probabilities; the published values are 0.05 to 0.92",
            stacklevel=2,
        )
        warnings.filterwarnings("ignore", message="alpha = .* is above 1")  # the loss's own words
    loss: nn.Module = nn.CrossEntropyLoss(label_smoothing=smoothing)
    if config.modify_softmax or config.equivalent_to is not None:
        # At alpha 1 the same kernel, so that the equivalent training rounds as the tampered does.
        alpha = config.modify_softmax or 1.0
        loss = TamperedCrossEntropyLoss(alpha, label_smoothing=smoothing, kernel=config.loss_kernel)
    return loss


def _check_loss_kernel(config: Config, device: torch.device) -> None:
    if config.loss_kernel != "auto":
        try:
            check_kernel(config.loss_kernel, device)
        except ValueError as error:
            message = f"--loss-kernel {config.loss_kernel}: {first_line(error)}"
            raise UserError(message) from error


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
        load_checkpoint_weights(model, Path(config.initial_checkpoint), config)
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
