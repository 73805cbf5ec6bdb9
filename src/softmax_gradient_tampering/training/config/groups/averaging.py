"""The flags about averaged weights."""

from dataclasses import dataclass

from softmax_gradient_tampering.training.config.flag import flag


@dataclass(frozen=True, kw_only=True)
class AveragingFlags:
    """The flags about averaged weights."""

    model_ema: bool = flag(
        False, "keep an exponential moving average of the weights, and evaluate it too"
    )
    model_ema_force_cpu: bool = flag(False, "keep the average in the CPU's memory")
    model_ema_decay: float = flag(
        0.9998, "share of the average that an optimizer step keeps", unit="SHARE"
    )
