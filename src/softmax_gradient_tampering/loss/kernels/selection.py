"""Which kernel computes a loss: the one asked for, or the fastest that can."""

import functools
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from softmax_gradient_tampering.loss.kernels import reference
from softmax_gradient_tampering.loss.kernels.contract import Kernel
from softmax_gradient_tampering.loss.kernels.cpu import blocks
from softmax_gradient_tampering.loss.kernels.cpu import kernel as cpu
from softmax_gradient_tampering.loss.kernels.cpu.native_library import native_library
from softmax_gradient_tampering.loss.kernels.options import Options

KERNELS = ("auto", "reference", "blocks", "cpu", "triton")


_ON_A_CPU: dict[str, Kernel] = {"blocks": blocks, "cpu": cpu}


def check_kernel(name: str, device: torch.device) -> None:
    """Refuse a kernel that logits on this device cannot have.

    Raises:
        ValueError: the name is none of `KERNELS`, or the kernel is not for the device.
    """
    if name not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {name!r}")
    if name in _ON_A_CPU and device.type != "cpu":
        raise ValueError(f"kernel {name!r} takes no logits on {device.type}; use 'auto'")
    if name == "triton" and not _is_triton_usable(device):
        raise ValueError(
            f"kernel 'triton' cannot run on {device.type} here: it needs a GPU that Triton knows "
            "and a C compiler, or Triton's interpreter (TRITON_INTERPRET=1); use 'auto'"
        )


def select_kernel(name: str, z: Tensor) -> Kernel:
    """The kernel of this name for the logits z; "auto" is the fastest for their device.

    Raises:
        ValueError: as `check_kernel`.
    """
    name = _resolve(name, z.device)
    if name == "triton" and z.dtype != torch.float64:
        kernel: Kernel = _triton()
        return kernel
    return _ON_A_CPU.get(name, reference)


def select_fused(name: str, z: Tensor, options: Options) -> Any:
    """What makes loss and gradient at once, where that is the fastest; else None."""
    if z.dtype == torch.float64 or _resolve(name, z.device) != "triton":
        return None
    fused = _fused()
    return fused if fused.takes(z, options) else None


def select_plain(z: Tensor) -> Any:
    """The class that takes plain logits on a GPU by the fewest steps; None if there is none."""
    return _fused().PlainLogits if z.is_cuda and _is_triton_usable(z.device) else None


def select_class_blocks(device: torch.device) -> Any:
    """What is done to blocks of classes on a GPU; None where Triton cannot run."""
    if device.type != "cuda" or not _is_triton_usable(device):
        return None
    return import_module("softmax_gradient_tampering.loss.kernels.triton.passes")


def describe_kernel(name: str, device: torch.device) -> str:
    """What computes the loss of float32 and half logits on this device, in words.

    It is made ready: what is built at first use is built.
    """
    name = _resolve(name, device)
    if name != "cpu":
        return name
    return f"native ({torch.backends.cpu.get_cpu_capability()})" if native_library() else "blocks"


def _resolve(name: str, device: torch.device) -> str:
    """The name itself, once it is checked, or what "auto" stands for on this device."""
    if name != "auto":
        check_kernel(name, device)
        return name
    if device.type == "cpu":
        return "cpu"
    return "triton" if device.type == "cuda" and _is_triton_usable(device) else "reference"


def _is_triton_usable(device: torch.device) -> bool:
    try:
        return _triton().is_usable(device)
    except ImportError:
        return False


@functools.cache
def _triton() -> Any:
    # Imported when it is first asked for: Triton may be missing, and loading it takes a while.
    return import_module("softmax_gradient_tampering.loss.kernels.triton.kernel")


@functools.cache
def _fused() -> Any:
    return import_module("softmax_gradient_tampering.loss.kernels.triton.fused")
