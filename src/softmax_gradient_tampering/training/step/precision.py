"""Mixed precision: the autocast context and the loss scale."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.amp import GradScaler, autocast

from softmax_gradient_tampering.training.step.optimizer import step_plainly


class Precision:
    """How the forward pass computes, and how the gradient is scaled.

    Args:
        device: where the model is.
        dtype: float16, bfloat16, or None for no mixed precision.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype | None) -> None:
        self.device = device
        self.dtype = dtype
        # bfloat16 has float32's range and needs no scale.
        self.scaler = GradScaler(device.type, enabled=dtype is torch.float16)

    def forward(self) -> AbstractContextManager[object]:
        if self.dtype is None:
            return nullcontext()
        return autocast(self.device.type, self.dtype)

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Step the optimizer; returns whether an overflow made it skip the step.

        The scaler reads the overflow from the device before it steps, the one synchronisation
        of a step in float16. Whether it then called the optimizer, the optimizer knows.
        """
        if not self.scaler.is_enabled():
            step_plainly(optimizer)
            return False
        has_stepped = False

        def note(*_: object) -> None:
            nonlocal has_stepped
            has_stepped = True

        with optimizer.register_step_post_hook(note):
            self.scaler.step(optimizer)
        self.scaler.update()
        return not has_stepped

    def scale(self, loss: Tensor) -> Tensor:
        return self.scaler.scale(loss) if self.scaler.is_enabled() else loss

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        if self.scaler.is_enabled():
            self.scaler.unscale_(optimizer)


# By the names that Linux gives them.
_INSTRUCTIONS = {
    torch.bfloat16: {"avx512_bf16", "amx_bf16", "bf16"},
    torch.float16: {"avx512_fp16", "amx_fp16", "asimdhp"},
}


def is_slow_on_this_cpu(dtype: torch.dtype | None, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU is known to have no instructions for a half type, which torch then emulates.

    Args:
        dtype: float16, bfloat16, or None for float32.
        cpuinfo: what the system says of the CPU; where there is no such file, nothing is known.
    """
    if dtype is None:
        return False
    try:
        words = set(cpuinfo.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return False
    return not words & _INSTRUCTIONS[dtype]


def resolve_dtype(amp: bool, amp_dtype: str | None, device: torch.device) -> torch.dtype | None:
    """`--amp` is float16 on a GPU and bfloat16 on a CPU; `--amp-dtype` says it outright."""
    if amp_dtype is not None:
        return {"float16": torch.float16, "bfloat16": torch.bfloat16}[amp_dtype]
    if not amp:
        return None
    return torch.bfloat16 if device.type == "cpu" else torch.float16
