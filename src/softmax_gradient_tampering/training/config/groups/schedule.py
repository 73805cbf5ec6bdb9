"""The flags about the learning rate over the epochs."""

from dataclasses import dataclass

from softmax_gradient_tampering.training.config.flag import Floats, flag


@dataclass(frozen=True, kw_only=True)
class ScheduleFlags:
    """The flags about the learning rate over the epochs."""

    sched: str = flag(
        "cosine",
        "how the learning rate falls: cosine, tanh, step, multistep, poly, plateau or constant",
        unit="NAME",
        choices=("cosine", "tanh", "step", "multistep", "poly", "plateau", "constant"),
    )
    sched_order: str = flag(
        "timm",
        "timm: each epoch has its own rate; published: after the first epoch, that of the next "
        "one, as the published loop had it",
        unit="NAME",
        choices=("timm", "published"),
    )
    lr_noise: Floats | None = flag(
        None,
        "add noise to the rate: where it starts, and where it ends, as shares of the epochs",
        unit="SHARE ...",
        unset="off",
    )
    lr_noise_pct: float = flag(0.67, "largest noise, as a share of the rate", unit="SHARE")
    lr_noise_std: float = flag(1.0, "standard deviation of the noise", unit="X")
    lr_cycle_mul: float = flag(
        1.0, "each cycle is this many times as long as the one before", unit="FACTOR"
    )
    lr_cycle_limit: int = flag(1, "number of cycles (cosine, tanh, poly)", unit="N")
    warmup_lr: float = flag(0.01, "learning rate at the start of the warm-up", unit="RATE")
    min_lr: float = flag(1e-4, "lowest learning rate", unit="RATE")
    start_epoch: int | None = flag(
        None, "begin at this epoch, counted from 0", unit="EPOCH", unset="0, or the checkpoint's"
    )
    decay_epochs: float = flag(30.0, "epochs between two drops (step, multistep)", unit="EPOCHS")
    warmup_epochs: int = flag(
        0, "epochs of linear warm-up, the first ones of --epochs", unit="EPOCHS"
    )
    cooldown_epochs: int = flag(0, "further epochs at --min-lr (cosine, tanh, poly)", unit="EPOCHS")
    patience_epochs: int = flag(
        10, "epochs without a better --eval-metric before a drop (plateau)", unit="EPOCHS"
    )
    decay_rate: float = flag(
        0.1, "what a drop multiplies the rate by; the power of poly", "--dr", unit="FACTOR"
    )
