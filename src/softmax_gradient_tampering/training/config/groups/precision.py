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
    tf32: bool = flag(True, "multiply float32 numbers of a GPU in TensorFloat-32")
    cudnn_benchmark: bool = flag(
        True, "let cuDNN time its convolutions on a GPU, and take the fastest of each shape"
    )
    deterministic: bool = flag(
        False,
        "repeat a run on one GPU bit by bit: deterministic algorithms of torch, and none that is "
        "chosen by timing",
    )
