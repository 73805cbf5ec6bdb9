"""From a configuration to the objects of a run: the only file that knows them all."""

from dataclasses import dataclass

import torch
from timm.models import model_parameters
from timm.utils import ModelEmaV3
from torch import nn

from softmax_gradient_tampering.data.factory import Dataset
from softmax_gradient_tampering.data.loader import WhileWaiting, wait_on
from softmax_gradient_tampering.data.order import counter_hash
from softmax_gradient_tampering.errors import UserError, as_user_error
from softmax_gradient_tampering.training.checkpoint.state import Circumstances
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.measure import predictions
from softmax_gradient_tampering.training.processes.distributed import Processes
from softmax_gradient_tampering.training.setup.data import (
    Data,
    create_data_options,
    create_loaders,
    open_configured_dataset,
)
from softmax_gradient_tampering.training.setup.loss import (
    check_loss_kernel,
    create_loss,
    loss_kernel_name,
)
from softmax_gradient_tampering.training.setup.model import (
    check_batch_norm,
    check_fit,
    create_configured_model,
    parallelise,
)
from softmax_gradient_tampering.training.setup.resolution import find_class_weights, resolve
from softmax_gradient_tampering.training.step import equivalence
from softmax_gradient_tampering.training.step.alpha_schedule import AlphaSchedule
from softmax_gradient_tampering.training.step.backends import set_backends
from softmax_gradient_tampering.training.step.optimizer import check_processes, create_optimizer
from softmax_gradient_tampering.training.step.precision import Precision, resolve_dtype
from softmax_gradient_tampering.training.step.schedule import Schedule
from softmax_gradient_tampering.training.step.trainer import Clipping, Trainer


@dataclass(frozen=True)
class Setup:
    """The objects of a run.

    Attributes:
        circumstances: the resolved configuration, and what else a checkpoint records of how.
        processes: this process among those of the run.
        data: what is trained and evaluated on.
        trainer: the model and all that changes it.
        schedule: of the learning rate.
        alpha_schedule: of alpha.
    """

    circumstances: Circumstances
    processes: Processes
    data: Data
    trainer: Trainer
    schedule: Schedule
    alpha_schedule: AlphaSchedule

    @property
    def config(self) -> Config:
        """The resolved configuration: with the model and the classes filled in."""
        return self.circumstances.config


def set_up(
    config: Config,
    processes: Processes,
    dataset: Dataset | None = None,
    while_waiting: WhileWaiting = wait_on,
) -> Setup:
    """Make the objects of a run.

    Args:
        config: the configuration.
        processes: the run's processes.
        dataset: data of one's own, in place of what the configuration names.
        while_waiting: called about every second while a batch is awaited.

    Raises:
        UserError: the data, the model or an option is missing or wrong.
    """
    check_loss_kernel(config, processes.device)
    set_backends(config, processes.device)
    dataset = dataset or open_configured_dataset(config, processes)
    if dataset.name == "digits" and processes.device.type == "cpu":
        torch.set_num_threads(1)  # nets of this size lose by threads, badly on a busy machine
    config = resolve(config, dataset)
    torch.manual_seed(counter_hash(config.seed))
    model = create_configured_model(config, dataset.image_size).to(processes.device)
    options = create_data_options(config, dataset, model, processes, while_waiting)
    check_fit(config.model, model, options.input_size)
    data = create_loaders(dataset, options)
    if min(filter(None, data.train_loader.batch_sizes)) == 1:
        check_batch_norm(config, model, options.input_size)
    if config.save_predictions:
        assert config.num_classes is not None
        predictions.check_size(dataset.num_val, config.num_classes)
    device, class_weights = processes.device, find_class_weights(config, dataset)
    loss_fn = create_loss(config, class_weights).to(device)
    trainer = _create_trainer(config, model, loss_fn, options.input_size, processes)
    schedule = _create_schedule(config, trainer.optimizer)
    alpha_schedule = AlphaSchedule(config, loss_fn, schedule.num_epochs, device)
    kernel = loss_kernel_name(config, device)
    circumstances = Circumstances(
        config, processes.number, device.type, kernel, dataset.num_train, class_weights
    )
    return Setup(circumstances, processes, data, trainer, schedule, alpha_schedule)


def _create_trainer(
    config: Config,
    model: nn.Module,
    loss_fn: nn.Module,
    size: tuple[int, int, int],
    processes: Processes,
) -> Trainer:
    """The trainer of a model that is on its device, for images of a size (C, H, W)."""
    dtype = resolve_dtype(config.amp or config.native_amp, config.amp_dtype, processes.device)
    if config.equivalent_to is not None:
        if dtype is torch.float16:
            raise UserError(
                f"--equivalent-to {config.equivalent_to} does not hold in float16: its loss scale "
                "skips other steps; give --amp-dtype bfloat16, or leave --amp out"
            )
        image = equivalence.noise_image(size, processes.device)
        equivalence.scale_head(model, config.equivalent_to, image)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    average = None
    if config.model_ema:
        device = torch.device("cpu") if config.model_ema_force_cpu else None
        average = ModelEmaV3(model, decay=config.model_ema_decay, device=device)
    optimizer = create_optimizer(config, model)
    check_processes(config.opt, optimizer, processes.number)
    return Trainer(
        model=model,
        optimizer=optimizer,
        loss_fn=loss_fn,
        precision=Precision(processes.device, dtype),
        parallel=parallelise(config, model, processes),
        average=average,
        seed=config.seed,
        rank=processes.rank,
        accumulation=config.grad_accum_steps,
        clipping=_clipping(config, model),
        skips_nonfinite=config.on_nonfinite == "skip",
        all_agree=processes.all_agree,
    )


def _create_schedule(config: Config, optimizer: torch.optim.Optimizer) -> Schedule:
    with as_user_error(f"--sched {config.sched} or an option of it"):
        schedule = Schedule(config, optimizer)
    if (config.start_epoch or 0) >= schedule.num_epochs:
        raise UserError(
            f"--start-epoch {config.start_epoch}: the run's {schedule.num_epochs} epochs count "
            "from 0; start earlier or give more --epochs"
        )
    return schedule


def _clipping(config: Config, model: nn.Module) -> Clipping | None:
    if config.clip_grad is None:
        return None
    # Adaptive clipping leaves the classifier out, as in its paper (arXiv 2102.06171).
    parameters = list(model_parameters(model, exclude_head=config.clip_mode == "agc"))
    value = config.clip_grad
    if config.equivalent_to is not None:
        value *= equivalence.scale_of_clipping(model, config.equivalent_to, parameters)
    return Clipping(value, config.clip_mode, parameters)
