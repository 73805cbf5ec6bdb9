"""What a run remembers besides its tensors, and how both go in and out of a checkpoint."""

import reprlib
from dataclasses import asdict, dataclass, field
from typing import Any

from softmax_gradient_tampering.errors import UserError, as_printable, as_user_error
from softmax_gradient_tampering.training.checkpoint.folder import (
    FORMAT,
    OUR_KEY,
    Position,
    completed_epochs,
    saved_args,
)
from softmax_gradient_tampering.training.checkpoint.weights import load_weights, mark_folded
from softmax_gradient_tampering.training.config.arguments import to_mapping
from softmax_gradient_tampering.training.records.run_files import Row
from softmax_gradient_tampering.training.setup.setup import Setup
from softmax_gradient_tampering.training.step.optimizer import load_optimizer_state

# How a run is run, not what it is: equal runs may differ in these.
_NOT_IN_ARGS = ("output", "experiment", "local_rank", "validate", "dry_run", "max_steps")


@dataclass
class RunState:
    """Where a run is, and what it has recorded.

    Attributes:
        position: completed epochs, batches, optimizer steps.
        rows: of summary.csv.
        best: (epoch, metric) of the best checkpoints, the best first.
        tallies: of a begun epoch, by process.
        seconds: of training, over all resumptions.
        resumes: how often the run was resumed.
    """

    position: Position = field(default_factory=Position)
    rows: list[Row] = field(default_factory=list)
    best: list[tuple[int, float]] = field(default_factory=list)
    tallies: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0
    resumes: int = 0

    def start_over_at(self, epoch: int) -> None:
        """Take the run to be at the start of an epoch, as --start-epoch says."""
        self.position.epoch, self.position.batch = epoch, 0
        self.tallies = []
        self.rows = [row for row in self.rows if int(row["epoch"] or 0) <= epoch]

    def checkpoint(self, setup: Setup, metric: float | None) -> dict[str, Any]:
        """The checkpoint of this moment, with an epoch's metric where it was evaluated."""
        # Speed is the one column that an equal run may differ in: it is kept with the times.
        rows = [{**row, "images_per_s": None} for row in self.rows]
        checkpoint: dict[str, Any] = {
            "epoch": self.position.epoch,
            "arch": setup.config.model,
            "state_dict": setup.model.state_dict(),
            "optimizer": setup.trainer.optimizer.state_dict(),
            "version": 1,
            "args": to_mapping(setup.config, leave_out=_NOT_IN_ARGS),
            OUR_KEY: {
                "format": FORMAT,
                "position": asdict(self.position),
                "rows": rows,
                "best": [list(item) for item in self.best],
                "tallies": self.tallies,
                "schedule": setup.schedule.state(),
                "num_processes": setup.processes.number,
                "device": setup.processes.device.type,
                "loss_kernel": setup.loss_kernel,
                "num_samples": setup.dataset.num_train,
                "folded_alpha": getattr(setup.model, "folded_alpha", None),
                "times": {
                    "seconds": self.seconds,
                    "resumes": self.resumes,
                    "images_per_s": [row["images_per_s"] for row in self.rows],
                },
            },
        }
        scaler = setup.trainer.precision.scaler
        if scaler.is_enabled():
            checkpoint["amp_scaler"] = scaler.state_dict()
        if setup.ema is not None:
            checkpoint["state_dict_ema"] = setup.ema.module.state_dict()
        if metric is not None:
            checkpoint["metric"] = metric
        return checkpoint


def restore(checkpoint: dict[str, Any], setup: Setup) -> RunState:
    """Put a checkpoint's tensors into the objects of a run, and return what it remembers.

    Raises:
        UserError: the checkpoint is another model's.
    """
    config = setup.config
    load_weights(setup.model, checkpoint["state_dict"], config)
    mark_folded(setup.model, checkpoint)
    if setup.ema is not None:
        weights = checkpoint.get("state_dict_ema", checkpoint["state_dict"])
        load_weights(setup.ema.module, weights, config)
    if not config.no_resume_opt and "optimizer" in checkpoint:
        saved = saved_args(checkpoint).get("opt", config.opt)
        if saved != config.opt:
            raise UserError(
                f"--opt {config.opt}: the checkpoint's optimizer is {_shown(saved)}; give that "
                "one, or --no-resume-opt to start the optimizer anew"
            )
        with as_user_error("the checkpoint's optimizer does not fit; --no-resume-opt"):
            load_optimizer_state(setup.trainer.optimizer, checkpoint["optimizer"])
        scaler = setup.trainer.precision.scaler
        if scaler.is_enabled() and "amp_scaler" in checkpoint:
            with as_user_error("the checkpoint's loss scale does not fit; --no-resume-opt"):
                scaler.load_state_dict(checkpoint["amp_scaler"])
    ours = _ours(checkpoint)
    if not ours:
        return RunState(Position(epoch=completed_epochs(checkpoint)))
    with as_user_error("the checkpoint's state of the schedule does not fit --sched"):
        setup.schedule.restore(ours["schedule"])
    speeds = ours["times"]["images_per_s"]
    return RunState(
        position=Position(**ours["position"]),
        rows=[
            {**row, "images_per_s": speed} for row, speed in zip(ours["rows"], speeds, strict=True)
        ],
        best=[(epoch, metric) for epoch, metric in ours["best"]],
        tallies=ours["tallies"],
        seconds=ours["times"]["seconds"],
        resumes=ours["times"]["resumes"] + 1,
    )


# Settings that say which samples a batch number stands for.
_BATCH_SETTINGS = ("seed", "grad_accum_steps", "mixup", "cutmix", "cutmix_minmax", "aug_splits")
# Settings whose change needs no word.
_UNREMARKED = (
    *("resume", "workers", "log_interval", "per_line", "epochs", "recovery_interval"),
    "save_predictions",
)


def compare_settings(checkpoint: dict[str, Any], setup: Setup, position: Position) -> list[str]:
    """Lines on settings that differ from the checkpoint's.

    Raises:
        UserError: in the middle of an epoch they would make its batches other samples.
    """
    saved, asked = saved_args(checkpoint), to_mapping(setup.config, leave_out=_NOT_IN_ARGS)
    changed = {name: saved[name] for name in asked if name in saved and saved[name] != asked[name]}
    if position.batch:
        before = saved["batch_size"] * _ours(checkpoint)["num_processes"]
        now = asked["batch_size"] * setup.processes.number
        wrong = [name for name in _BATCH_SETTINGS if name in changed]
        if wrong or before != now:
            name = wrong[0] if wrong else "batch_size * processes"
            was, is_now = (_shown(saved[name]), asked[name]) if wrong else (before, now)
            raise UserError(
                f"{name} {is_now}: the checkpoint is in the middle of an epoch begun with {was}; "
                "give the same, or go on from last.pth.tar, an epoch's end"
            )
    lines = _hardware_notes(_ours(checkpoint), setup)
    now, was = setup.dataset.num_train, _ours(checkpoint).get("num_samples")
    if was is not None and was != now:
        if position.batch:
            raise UserError(
                f"{setup.dataset.name} has {now} training samples: the checkpoint is in the middle "
                f"of an epoch over {was}; bring them back, or go on from last.pth.tar, an epoch's "
                "end, with another --experiment"
            )
        lines.append(f"Note: there are {now} training samples, and were {was}; their order differs")
    _check_place(position, setup)
    for name, was in changed.items():
        if name in _UNREMARKED:
            continue
        if name in ("lr", "weight_decay", "momentum") and not setup.config.no_resume_opt:
            flag = f"--{name.replace('_', '-')} {asked[name]}"
            lines.append(
                f"Warning: {flag} is not obeyed: the optimizer goes on with the checkpoint's "
                f"{_shown(was)}; --no-resume-opt starts it anew"
            )
        elif _ours(checkpoint):
            lines.append(f"Note: {name} is {asked[name]}, and was {_shown(was)} in the checkpoint")
    return lines


def _check_place(position: Position, setup: Setup) -> None:
    """Refuse a place that the run does not come by."""
    num_batches, num_epochs = len(setup.train_loader), setup.schedule.num_epochs
    if position.batch > num_batches:
        raise UserError(
            f"the checkpoint is {position.batch} batches into an epoch of {num_batches}; give the "
            "data and the settings that it was made with"
        )
    if setup.config.start_epoch is None and position.epoch > num_epochs:
        raise UserError(
            f"the checkpoint has {position.epoch} epochs behind it, and the run has {num_epochs}; "
            "give more --epochs, or --start-epoch"
        )


def _shown(saved: Any) -> str:
    """A setting of a checkpoint, as far as it is fit to be printed."""
    text = saved if isinstance(saved, str) else reprlib.repr(saved)
    return as_printable(f"{text:.60}")


def _hardware_notes(ours: dict[str, Any], setup: Setup) -> list[str]:
    """What cannot be bitwise equal after a change of processes or device."""
    same = "the order of the samples is the same, the sums are rounded otherwise"
    lines = []
    now, before = setup.processes.number, ours.get("num_processes", setup.processes.number)
    if now != before:
        lines.append(
            f"Note: processes: {now}, and {before} in the checkpoint: where batch size times "
            f"processes is the same, {same}; batch statistics are those of a process's share"
        )
    device = setup.processes.device.type
    if ours.get("device", device) != device:
        lines.append(f"Note: on {device}, and on {ours['device']} in the checkpoint: {same}")
    kernel = setup.loss_kernel
    if ours.get("loss_kernel", kernel) != kernel:
        lines.append(
            f"Note: the loss is computed by {kernel}, and was by {ours['loss_kernel']} in the "
            f"checkpoint: {same}"
        )
    return lines


def _ours(checkpoint: dict[str, Any]) -> dict[str, Any]:
    ours: dict[str, Any] = checkpoint.get(OUR_KEY, {})
    return ours
