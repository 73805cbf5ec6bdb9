"""alpha, the exponent of the power transform: what it may be."""

import math

import torch
from torch import Tensor

from softmax_gradient_tampering.loss.torch_internals import is_transformed

Alpha = float | Tensor


def check_alpha(alpha: Alpha) -> Alpha:
    """Return alpha as a float, or as the 0-d tensor it is where it may not be read.

    A number and a CPU tensor are read and validated. A tensor on a device is not
    read, and under torch.compile and torch.func no tensor is: an alpha schedule then causes
    neither a synchronisation nor a recompilation.

    Raises:
        ValueError: alpha is not finite, negative, or a tensor with dimensions.
        TypeError: alpha is neither a number nor a tensor.
    """
    if type(alpha) is float and 0.0 <= alpha < math.inf:
        return alpha
    if isinstance(alpha, Tensor):
        if alpha.dim() != 0:
            raise ValueError(
                f"alpha must be a number or a 0-d tensor, not a tensor of shape "
                f"{tuple(alpha.shape)}; index one element or call .squeeze()"
            )
        if alpha.device.type != "cpu" or torch.compiler.is_compiling() or is_transformed():
            return alpha.detach()
        alpha = alpha.item()
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)):
        raise TypeError(f"alpha must be a number or a 0-d tensor, not {type(alpha).__name__}")
    if not (math.isfinite(alpha) and alpha >= 0):
        raise ValueError(
            f"alpha must be finite and at least 0, got {alpha}; "
            f"1 is ordinary cross-entropy, the published values are 0.05 to 0.92"
        )
    return float(alpha)
