"""The flags about precision and device."""

from dataclasses import dataclass

from softmax_gradient_tampering.training.config.flag import flag


@dataclass(frozen=True, kw_only=True)
class PrecisionFlags:
    """The flags about precision and device."""

    amp_dtype: str | None = flag(
        None,
        "train in mixed precision of this type: float16 or bfloat16",
        unit="TYPE",
        unset="--amp's",
        choices=("float16", "bfloat16"),
    )
    device: str | None = flag(
        None,
        "where to compute: cpu, cuda, cuda:1 ...",
        unit="DEVICE",
        unset="cuda where there is a GPU, else cpu",
    )
