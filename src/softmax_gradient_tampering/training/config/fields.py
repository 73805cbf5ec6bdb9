"""The configuration of a run: one flat, typed, frozen dataclass whose fields are the flags.

The names are the published program's, with its meanings; names that it lacks are timm's where
timm has one.
"""

from dataclasses import dataclass

from softmax_gradient_tampering.training.config.groups.augmentation import AugmentationFlags
from softmax_gradient_tampering.training.config.groups.averaging import AveragingFlags
from softmax_gradient_tampering.training.config.groups.data import DataFlags
from softmax_gradient_tampering.training.config.groups.first import FirstFlags
from softmax_gradient_tampering.training.config.groups.method import MethodFlags
from softmax_gradient_tampering.training.config.groups.model import ModelFlags
from softmax_gradient_tampering.training.config.groups.old import OldFlags
from softmax_gradient_tampering.training.config.groups.optimizer import OptimizerFlags
from softmax_gradient_tampering.training.config.groups.precision import PrecisionFlags
from softmax_gradient_tampering.training.config.groups.run import RunFlags
from softmax_gradient_tampering.training.config.groups.schedule import ScheduleFlags

# Headings of the help, in its order.
GROUPS: dict[str, type] = {
    "to begin with": FirstFlags,
    "method": MethodFlags,
    "data": DataFlags,
    "model": ModelFlags,
    "optimizer": OptimizerFlags,
    "schedule": ScheduleFlags,
    "augmentation": AugmentationFlags,
    "averaged weights": AveragingFlags,
    "precision and device": PrecisionFlags,
    "run": RunFlags,
    "older names, and flags that change nothing or are refused": OldFlags,
}


@dataclass(frozen=True, kw_only=True)
class Config(
    OldFlags,
    RunFlags,
    PrecisionFlags,
    AveragingFlags,
    AugmentationFlags,
    ScheduleFlags,
    OptimizerFlags,
    ModelFlags,
    DataFlags,
    MethodFlags,
    FirstFlags,
):
    """Every flag of `sgt train`; a dataclass has the fields of its last parent first."""

    @property
    def final_alpha(self) -> float:
        """The exponent in force at the end of the run: 1 where tampering is off."""
        return self.alpha_end or self.modify_softmax or 1.0

    @property
    def evaluation_interval(self) -> int:
        """Epochs between evaluations, under either name."""
        return max(self.eval_every, self.train_continuous)

    @property
    def sinks(self) -> tuple[str, ...]:
        """The sinks of --log and --log-wandb, each once."""
        return tuple(dict.fromkeys((*self.log, *(("wandb",) if self.log_wandb else ()))))

    @property
    def uses_dali(self) -> bool:
        """Whether DALI loads, decoding wherever it does."""
        return self.dali or self.dali_gpu

    @property
    def is_mixing(self) -> bool:
        """Whether mixup or cutmix is on."""
        return self.mixup > 0 or self.cutmix > 0 or self.cutmix_minmax is not None


NOT_RECORDED = ("resume", "output", "experiment", "local_rank", "validate", "dry_run")
