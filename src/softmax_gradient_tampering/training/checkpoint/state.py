"""The state of a run, and how it and the tensors go into a checkpoint and out of it."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn

from softmax_gradient_tampering.errors import UserError, as_user_error
from softmax_gradient_tampering.training.checkpoint.content import (
    FORMAT,
    OUR_KEY,
    completed_epochs,
    saved_args,
    saved_position,
    shown,
)
from softmax_gradient_tampering.training.checkpoint.weights import load_weights, mark_folded
from softmax_gradient_tampering.training.config.arguments import to_mapping
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.records.run_files import Row
from softmax_gradient_tampering.training.step.optimizer_state import load_optimizer_state
from softmax_gradient_tampering.training.step.position import Position
from softmax_gradient_tampering.training.step.schedule import Schedule
from softmax_gradient_tampering.training.step.trainer import Trainer

# Settings that do not change the training: equal runs may differ in them.
NOT_IN_ARGS = ("output", "experiment", "local_rank", "validate", "dry_run", "max_steps")


@dataclass(frozen=True)
class Circumstances:
    """The configuration and the machinery of a run; recorded in checkpoints, compared on resuming.

    Attributes:
        config: the resolved configuration.
        num_processes: of the run.
        device: the kind of device, as "cuda".
        loss_kernel: what computes the tampered loss, or "torch" where nothing is tampered with.
        num_samples: of training.
        class_weights: what an image of each class counts in the loss; None where all count alike.
    """

    config: Config
    num_processes: int
    device: str
    loss_kernel: str
    num_samples: int
    class_weights: list[float] | None = None

    def recorded(self) -> dict[str, Any]:
        """All but the configuration, as a checkpoint holds it."""
        return {name: value for name, value in vars(self).items() if name != "config"}


@dataclass
class RunState:
    """Where a run is, and what it has recorded.

    Attributes:
        position: completed epochs, batches, optimizer steps.
        rows: of summary.csv.
        best: (epoch, metric) of the best checkpoints, the best first.
        tallies: of a begun epoch, by process.
        started: when the training began by time.perf_counter; for a resumed run, when it would
            have begun without the pauses.
        resumes: how often the run was resumed.
    """

    position: Position = field(default_factory=Position)
    rows: list[Row] = field(default_factory=list)
    best: list[tuple[int, float]] = field(default_factory=list)
    tallies: list[list[float]] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    resumes: int = 0

    @staticmethod
    def of(checkpoint: dict[str, Any]) -> "RunState":
        """The state that a checkpoint holds; of other programs' the completed epochs alone."""
        ours = checkpoint.get(OUR_KEY)
        if ours is None:
            return RunState(Position(epoch=completed_epochs(checkpoint)))
        speeds = ours["times"]["images_per_s"]
        return RunState(
            position=Position(**saved_position(checkpoint)),
            rows=[
                {**row, "images_per_s": speed}
                for row, speed in zip(ours["rows"], speeds, strict=True)
            ],
            best=[(epoch, metric) for epoch, metric in ours["best"]],
            tallies=ours["tallies"],
            started=time.perf_counter() - ours["times"]["seconds"],
            resumes=ours["times"]["resumes"] + 1,
        )

    @property
    def seconds(self) -> float:
        """Of training, over all resumptions."""
        return time.perf_counter() - self.started

    def rank(self, metric: float, num_best: int, lower_is_better: bool) -> None:
        """Enter the completed epoch's metric among the best, of which at least one is kept."""
        sign = 1 if lower_is_better else -1
        self.best.append((self.position.epoch, metric))
        # A later epoch is not better for being equal; nan is worse than any number.
        self.best.sort(key=lambda item: (item[1] != item[1], sign * item[1], item[0]))
        del self.best[max(1, num_best) :]

    def recorded(self) -> dict[str, Any]:
        """The state as a checkpoint holds it: plain types, all that `of` reads."""
        # Speed is the one column that an equal run may differ in: it is kept with the times.
        return {
            "position": asdict(self.position),
            "rows": [{**row, "images_per_s": None} for row in self.rows],
            "best": [list(item) for item in self.best],
            "tallies": self.tallies,
            "times": {
                "seconds": self.seconds,
                "resumes": self.resumes,
                "images_per_s": [row["images_per_s"] for row in self.rows],
            },
        }

    def start_over_at(self, epoch: int) -> None:
        """Take the run to be at the start of an epoch, as --start-epoch says."""
        self.position.start_epoch(epoch)
        self.tallies = []
        self.rows = [row for row in self.rows if int(row["epoch"] or 0) <= epoch]


def make_checkpoint(
    state: RunState,
    trainer: Trainer,
    schedule: Schedule,
    circumstances: Circumstances,
    metric: float | None = None,
) -> dict[str, Any]:
    """The checkpoint of this moment, with an epoch's metric where it was evaluated."""
    checkpoint: dict[str, Any] = {
        "epoch": state.position.epoch,
        "arch": circumstances.config.model,
        "state_dict": _weights(trainer.model),
        "optimizer": trainer.optimizer.state_dict(),
        "version": 1,
        "args": to_mapping(circumstances.config, leave_out=NOT_IN_ARGS),
        OUR_KEY: {
            "format": FORMAT,
            **state.recorded(),
            "schedule": schedule.state(),
            **circumstances.recorded(),
            "folded_alpha": getattr(trainer.model, "folded_alpha", None),
        },
    }
    scaler = trainer.precision.scaler
    if scaler.is_enabled():
        checkpoint["amp_scaler"] = scaler.state_dict()
    if trainer.average is not None:
        checkpoint["state_dict_ema"] = _weights(trainer.average.module)
    if metric is not None:
        checkpoint["metric"] = metric
    return checkpoint


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights as they are, but for those that --channels-last has laid out pixel by pixel.

    Programs that write safetensors refuse tensors that are not contiguous.
    """
    weights: dict[str, Tensor] = model.state_dict()
    for name, tensor in weights.items():
        weights[name] = tensor.contiguous()
    return weights


def restore(
    checkpoint: dict[str, Any], trainer: Trainer, schedule: Schedule, config: Config
) -> None:
    """Put a checkpoint's tensors and states into the objects of a run.

    Raises:
        UserError: the checkpoint belongs to another model or another optimizer.
    """
    load_weights(trainer.model, checkpoint["state_dict"], config, checkpoint.get("arch") or "")
    mark_folded(trainer.model, checkpoint)
    if trainer.average is not None:
        weights = checkpoint.get("state_dict_ema", checkpoint["state_dict"])
        load_weights(trainer.average.module, weights, config)
    if not config.no_resume_opt and "optimizer" in checkpoint:
        _restore_optimizer(checkpoint, trainer, config)
        schedule.take_rates()
    if OUR_KEY in checkpoint:
        with as_user_error("the checkpoint's state of the schedule does not fit --sched"):
            schedule.restore(checkpoint[OUR_KEY]["schedule"])


def _restore_optimizer(checkpoint: dict[str, Any], trainer: Trainer, config: Config) -> None:
    saved = saved_args(checkpoint).get("opt", config.opt)
    if saved != config.opt:
        raise UserError(
            f"--opt {config.opt}: the checkpoint's optimizer is {shown(saved)}; give that one, or "
            "--no-resume-opt to start the optimizer anew"
        )
    with as_user_error("the checkpoint's optimizer does not fit; --no-resume-opt"):
        state = checkpoint["optimizer"]
        load_optimizer_state(trainer.optimizer, state, config, trainer.model)
    scaler = trainer.precision.scaler
    if scaler.is_enabled() and "amp_scaler" in checkpoint:
        with as_user_error("the checkpoint's loss scale does not fit; --no-resume-opt"):
            scaler.load_state_dict(checkpoint["amp_scaler"])
