"""What the loaders need to know of a run."""

from dataclasses import dataclass, field
from typing import Any

import torch
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing

from softmax_gradient_tampering.data.loader import WhileWaiting, wait_on
from softmax_gradient_tampering.data.model_input import ModelInput
from softmax_gradient_tampering.data.order import BatchPlan


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """What the loaders need to know; the training flags of the same names say more."""

    device: torch.device
    seed: int
    batch_size: int
    eval_batch_size: int
    num_workers: int
    num_processes: int = 1
    process: int = 0
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    channels_last: bool = False
    train_interpolation: str = "random"
    no_aug: bool = False
    scale: tuple[float, ...] = (0.08, 1.0)
    ratio: tuple[float, ...] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    vflip: float = 0.0
    color_jitter: float = 0.4
    auto_augment: str | None = None
    aug_splits: int = 0
    erasing: dict[str, Any] = field(default_factory=dict)
    resplit: bool = False
    mixup: Mixup | None = None
    mixup_off_epoch: int = 0
    while_waiting: WhileWaiting = wait_on

    def plan(self, num_samples: int, drop_last: bool) -> BatchPlan:
        """The batches of an epoch; mixing needs pairs."""
        return BatchPlan(
            num_samples,
            min(self.batch_size, max(1, num_samples // self.num_processes)),
            self.num_processes,
            drop_last,
            multiple=2 if self.mixup else 1,
        )

    def model_input(self, is_training: bool) -> ModelInput:
        erasing = None
        if is_training and self.erasing.get("probability") and not self.no_aug:
            num_splits = (self.aug_splits or 2) if self.resplit else 0
            erasing = RandomErasing(**self.erasing, num_splits=num_splits, device=self.device)
        return ModelInput(
            self.mean,
            self.std,
            self.device,
            self.channels_last,
            self.seed,
            erasing,
            self.mixup if is_training else None,
            self.mixup_off_epoch,
        )
