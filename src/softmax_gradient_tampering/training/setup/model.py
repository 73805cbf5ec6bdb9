"""From a configuration to the model, and to how several processes call it."""

import inspect
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from timm.layers import convert_splitbn_model
from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from softmax_gradient_tampering.errors import UserError, as_user_error
from softmax_gradient_tampering.models import create_model, find_model
from softmax_gradient_tampering.training.checkpoint.content import load_checkpoint
from softmax_gradient_tampering.training.checkpoint.weights import load_best_weights
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.processes.distributed import Processes

if TYPE_CHECKING:  # torch's types do not know it
    GradBucket = Any
else:
    from torch.distributed import GradBucket

_PART = 2**20  # of a bucket: its gradients of all processes are in memory at a time


def create_configured_model(config: Config, image_size: tuple[int, int, int] | None) -> nn.Module:
    """The model of a resolved configuration, with its weights.

    Args:
        config: resolved.
        image_size: (C, H, W) of the data set's images where all have one, else None.

    Raises:
        UserError: there is no such model, or its weights cannot be loaded.
    """
    assert config.model is not None
    settings: dict[str, Any] = {
        "pretrained": config.pretrained,
        "num_classes": config.num_classes,
        "drop_rate": config.drop or None,
        "drop_path_rate": config.drop_path or config.drop_connect,
        "drop_block_rate": config.drop_block,
        "global_pool": config.gp,
    }
    size = image_size or config.input_size
    if size:
        settings["in_chans"] = size[0]
    found = find_model(config.model)
    if found.has_fixed_size:
        settings["img_size"] = config.img_size or (size[-1] if size else None)
    model = create_model(found, config.zero_init_last, **settings)
    _set_batch_norm(config, model)
    if config.initial_checkpoint:
        checkpoint = load_checkpoint(Path(config.initial_checkpoint))
        line = load_best_weights(model, checkpoint, config, may_start_head=not config.validate)
        if line is not None:
            warnings.warn(f"--initial-checkpoint {config.initial_checkpoint}: {line}", stacklevel=2)
    if config.split_bn:
        model = convert_splitbn_model(model, max(config.aug_splits, 2))
    return model


def check_fit(name: str | None, model: nn.Module, size: tuple[int, int, int]) -> None:
    """Pass one blank image through a model, to refuse a size that it does not take.

    Raises:
        UserError: it does not take images of the size (C, H, W).
    """
    image = torch.zeros(1, *size, device=next(model.parameters()).device)
    model.eval()
    shown = "x".join(map(str, size))
    with torch.inference_mode(), as_user_error(f"--model {name} takes no {shown} images"):
        model(image)
    model.train()


def check_batch_norm(config: Config, model: nn.Module, size: tuple[int, int, int]) -> None:
    """Refuse batches of one image where batch normalisation would see one value of a channel.

    Args:
        config: resolved.
        model: that has been found to take images of the size.
        size: (C, H, W) of the images.

    Raises:
        UserError: a layer is given one value of each channel, which has no variance.
    """
    if config.sync_bn or (config.aug_splits and not config.split_bn):
        return  # more than one image together
    names: list[str] = []

    def note(name: str, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs[0].numel() == inputs[0].shape[1]:
            names.append(name)

    hooks = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: note(name, inputs))
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    try:
        check_fit(config.model, model, size)
    finally:
        for hook in hooks:
            hook.remove()
    if names:
        shown = "x".join(map(str, size))
        raise UserError(
            f"--batch-size {config.batch_size}: a batch of one image has one value of each channel "
            f"at {names[0]} of {config.model}, for {shown} images, and batch normalisation needs "
            "two; give --batch-size 2 or more, or larger images"
        )


def _set_batch_norm(config: Config, model: nn.Module) -> None:
    momentum, eps = (0.01, 1e-3) if config.bn_tf else (None, None)
    momentum = momentum if config.bn_momentum is None else config.bn_momentum
    eps = eps if config.bn_eps is None else config.bn_eps
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = module.momentum if momentum is None else momentum
            module.eps = module.eps if eps is None else eps


def _syncing_buffers(is_on: bool) -> dict[str, Any]:
    """Whether buffers are broadcast before every batch, as this version of torch calls it."""
    known = inspect.signature(DistributedDataParallel).parameters
    return {
        "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": is_on
    }


def parallelise(
    config: Config, model: nn.Module, processes: Processes
) -> DistributedDataParallel | None:
    """Synchronise and compile a model in place; with several processes, wrap it too."""
    if config.sync_bn:
        if processes.device.type != "cuda":
            raise UserError("--sync-bn needs GPUs: torch has no synchronised batch norm on a CPU")
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if config.torchcompile:
        model.compile()
    if processes.number == 1:
        return None
    devices = [processes.device] if processes.device.type == "cuda" else None
    parallel = DistributedDataParallel(
        model,
        device_ids=devices,
        # The gradients are shared where they are, in place of copies: memory and a pass less.
        gradient_as_bucket_view=True,
        # Running statistics are for evaluation, and an epoch ends with process 0's, whose own no
        # broadcast changes. Their mean is another matter: without a broadcast before every batch
        # it would be of what each process has seen, which a checkpoint within an epoch lacks.
        **_syncing_buffers(config.dist_bn == "reduce"),
        # static_graph stays off: what it saves is a search for unused parameters, which is not
        # made here.
    )
    if processes.device.type == "cpu":
        parallel.register_comm_hook(processes.number, _average_by_rank)
    return parallel


def _average_by_rank(number: int, bucket: GradBucket) -> Future[Tensor]:
    """Average the gradients of a bucket over all processes, summed from process 0 on.

    Gloo's own sums begin with another process in each part of a bucket, and torch lays the buckets
    out anew after the first step of a program: the first step of a run that goes on would be
    rounded otherwise than in the unbroken run.
    """
    gradient = bucket.buffer()
    gradient *= 1 / number
    for part in gradient.split(_PART):
        parts = [torch.empty_like(part) for _ in range(number)]
        dist.all_gather(parts, part)
        torch.add(parts[0], parts[1], out=part)
        for other in parts[2:]:
            part += other
    averaged: Future[Tensor] = Future()
    averaged.set_result(gradient)
    return averaged
