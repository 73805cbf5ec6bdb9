"""What a run remembers besides its tensors, and how both go in and out of a checkpoint."""

from dataclasses import asdict, dataclass, field
from typing import Any

from softmax_gradient_tampering.training.arguments import to_mapping
from softmax_gradient_tampering.training.checkpoint import (
    FORMAT,
    OUR_KEY,
    Position,
    completed_epochs,
)
from softmax_gradient_tampering.training.records import Row
from softmax_gradient_tampering.training.setup import Setup, load_weights

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
    setup.model.folded_alpha = _ours(checkpoint).get("folded_alpha")  # type: ignore[assignment]
    if setup.ema is not None:
        weights = checkpoint.get("state_dict_ema", checkpoint["state_dict"])
        load_weights(setup.ema.module, weights, config)
    if not config.no_resume_opt and "optimizer" in checkpoint:
        setup.trainer.optimizer.load_state_dict(checkpoint["optimizer"])
        scaler = setup.trainer.precision.scaler
        if scaler.is_enabled() and "amp_scaler" in checkpoint:
            scaler.load_state_dict(checkpoint["amp_scaler"])
    ours = _ours(checkpoint)
    if not ours:
        return RunState(Position(epoch=completed_epochs(checkpoint)))
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


def _ours(checkpoint: dict[str, Any]) -> dict[str, Any]:
    ours: dict[str, Any] = checkpoint.get(OUR_KEY, {})
    return ours
