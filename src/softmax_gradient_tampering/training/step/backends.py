"""What a GPU may do to be faster: TensorFloat-32, cuDNN's choice by timing; or to repeat itself."""

import os
import warnings
from typing import Any

import torch

from softmax_gradient_tampering.training.config.fields import Config

# cuBLAS reads it when it is first used; without it its sums may come in another order.
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


def set_backends(config: Config, device: torch.device) -> None:
    """Set torch's switches for a GPU as the flags say; on a CPU there are none.

    timm's script sets the first two likewise. A process that trains one run after another sets
    them for each.
    """
    if device.type != "cuda":
        return
    torch.backends.cudnn.benchmark = config.cudnn_benchmark and not config.deterministic
    with warnings.catch_warnings():
        # torch 2.9 calls both names old. Its new ones leave the old as they are, and code that
        # asks by those, torch.compile's convolutions among it, then ends with an error.
        warnings.filterwarnings("ignore", "Please use the new API")
        torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = config.tf32
    if config.deterministic:
        os.environ.setdefault(*_WORKSPACE)
    # What has no deterministic form warns, and names itself.
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)


def describe_backends(device: torch.device) -> dict[str, Any] | None:
    """How torch's switches for a GPU are set; None on a CPU."""
    if device.type != "cuda":
        return None
    return {
        "cuda": torch.version.cuda or torch.version.hip,
        "cudnn": torch.backends.cudnn.version(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "tf32": torch.backends.cudnn.allow_tf32,
        "float32_matmul": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
