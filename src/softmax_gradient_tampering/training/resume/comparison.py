"""What has changed since a checkpoint was made: refused where the order would be another one."""

from typing import Any

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.files.untrusted import is_number
from softmax_gradient_tampering.training.checkpoint.content import (
    OUR_KEY,
    saved_args,
    shown,
)
from softmax_gradient_tampering.training.checkpoint.state import NOT_IN_ARGS, Circumstances
from softmax_gradient_tampering.training.config.arguments import to_mapping
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.step.position import Position

# Settings whose change is not reported.
_UNREMARKED = (
    *("resume", "workers", "log_interval", "per_line", "epochs", "recovery_interval"),
    *("save_predictions", "batch_timeout"),
)
# Settings of validation images.
_OF_IMAGES = ("img_size", "input_size", "crop_pct", "interpolation", "mean", "std", "holdout")
# Settings that are the optimizer's, by their names in its parameter groups.
_OF_OPTIMIZER = {"lr": "initial_lr", "weight_decay": "weight_decay", "momentum": "momentum"}


def compare_with(checkpoint: dict[str, Any], now: Circumstances, position: Position) -> list[str]:
    """Lines on what differs from a checkpoint.

    Args:
        checkpoint: to go on from.
        now: the circumstances of this run.
        position: where it goes on.

    Raises:
        UserError: the checkpoint is in the middle of an epoch of another order.
    """
    ours: dict[str, Any] = checkpoint.get(OUR_KEY, {})
    saved, asked = saved_args(checkpoint), to_mapping(now.config, leave_out=NOT_IN_ARGS)
    changed = {name: saved[name] for name in asked if name in saved and saved[name] != asked[name]}
    if position.samples:
        _check_order(ours, changed, now)
    lines = _hardware_notes(ours, now) + _data_notes(ours, now)
    kept = settings_of_optimizer(checkpoint, now.config)
    lines += [_kept_note(name, kept[name], asked[name]) for name in kept]
    for name, was in changed.items():
        if ours and name not in _UNREMARKED and name not in kept:
            lines.append(f"Note: {name} is {asked[name]}, and was {shown(was)} in the checkpoint")
    return list(filter(None, lines))


def compare_images(checkpoint: dict[str, Any], config: Config) -> list[str]:
    """Lines on what the model sees otherwise than in the run that a checkpoint is of."""
    saved, asked = saved_args(checkpoint), to_mapping(config)
    return [
        f"Note: {name} is {asked[name]}, and was {shown(saved[name])} in the checkpoint"
        for name in _OF_IMAGES
        if OUR_KEY in checkpoint and name in saved and saved[name] != asked[name]
    ]


def settings_of_optimizer(checkpoint: dict[str, Any], config: Config) -> dict[str, float]:
    """The settings in which the optimizer is the checkpoint's, whatever is asked for."""
    if config.no_resume_opt or "optimizer" not in checkpoint:
        return {}
    groups = checkpoint["optimizer"]["param_groups"]
    kept = {
        name: max(values)  # biases and normalisation have no weight decay
        for name, key in _OF_OPTIMIZER.items()
        if (values := [float(g[key]) for g in groups if is_number(g.get(key))])
    }
    if config.equivalent_to is not None:  # each group has a part of what was asked for
        kept.pop("weight_decay", None)
    return kept


def _kept_note(name: str, kept: float, asked: float) -> str:
    """A line on a setting in which the optimizer goes on as it was; empty if that is as asked."""
    if kept == asked:
        return ""
    if asked == getattr(Config, name):  # not given, as far as can be told
        return f"Note: {name} is the checkpoint's {kept}, not the default {asked}"
    return (
        f"Warning: --{name.replace('_', '-')} {asked} is not obeyed: the optimizer goes on with "
        f"the checkpoint's {kept}; --no-resume-opt starts it anew"
    )


def check_place(
    position: Position, num_samples: int, num_epochs: int, start_epoch: int | None
) -> None:
    """Refuse a position that this run never reaches.

    Raises:
        UserError: it is beyond the end of an epoch or of the run.
    """
    if position.samples > num_samples:
        raise UserError(
            f"the checkpoint is {position.samples} samples into an epoch of {num_samples}; give "
            "the data that it was made with"
        )
    if position.batch > position.samples - position.taken:  # a batch has a sample at least
        raise UserError(
            f"the checkpoint is {position.batch} batches into an epoch, and only "
            f"{position.samples - position.taken} samples: no run writes that; give another one"
        )
    if start_epoch is None and position.epoch > num_epochs:
        raise UserError(
            f"the checkpoint has {position.epoch} epochs behind it, and the run has {num_epochs}; "
            "give more --epochs, or --start-epoch"
        )


def _check_order(ours: dict[str, Any], changed: dict[str, Any], now: Circumstances) -> None:
    """Refuse another order of the samples: which of them the epoch has had would be unknown."""
    if "seed" in changed:
        raise UserError(
            f"--seed {now.config.seed}: the checkpoint is in the middle of an epoch begun with "
            f"{shown(changed['seed'])}; give the same, or go on from last.pth.tar, an epoch's end, "
            "with another --experiment"
        )
    num_samples = ours.get("num_samples", now.num_samples)
    if num_samples != now.num_samples:
        raise UserError(
            f"there are {now.num_samples} training samples: the checkpoint is in the middle of an "
            f"epoch over {num_samples}; bring them back, or go on from last.pth.tar, an epoch's "
            "end, with another --experiment"
        )


def _data_notes(ours: dict[str, Any], now: Circumstances) -> list[str]:
    lines = []
    was = ours.get("num_samples", now.num_samples)
    if was != now.num_samples:
        lines.append(
            f"Note: there are {now.num_samples} training samples, and were {was}; their order "
            "differs"
        )
    if ours.get("class_weights", now.class_weights) != now.class_weights:
        lines.append("Note: the class weights are others than in the checkpoint")
    return lines


def _hardware_notes(ours: dict[str, Any], now: Circumstances) -> list[str]:
    """Notes on changes after which the results cannot be equal bit by bit."""
    same = "the order of the samples is the same, the sums are rounded otherwise"
    lines = []
    before = ours.get("num_processes", now.num_processes)
    if now.num_processes != before:
        lines.append(
            f"Note: processes: {now.num_processes}, and {before} in the checkpoint: where batch "
            f"size times processes is the same, {same}; batch statistics are those of a process's "
            "share"
        )
    before = ours.get("device", now.device)
    if now.device != before:
        lines.append(f"Note: on {now.device}, and on {before} in the checkpoint: {same}")
    before = ours.get("loss_kernel", now.loss_kernel)
    if now.loss_kernel != before:
        lines.append(
            f"Note: the loss is computed by {now.loss_kernel}, and was by {before} in the "
            f"checkpoint: {same}"
        )
    return lines
