"""What alpha, the exponent of the power transform, may be, and what may stand for a tensor."""

import math
import warnings
from collections.abc import Callable
from decimal import Decimal
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function

from softmax_gradient_tampering.loss.torch_internals import (
    is_differentiated,
    is_eager,
    is_jit_traced,
    is_transformed,
)

Alpha = float | Tensor


def check_alpha(alpha: Any) -> Alpha:
    """Return alpha as a float, or as the 0-d tensor it is where it may not be read.

    A number of any real type, a 0-d array and a CPU tensor are read and validated. A tensor on a
    device is not read, and neither is any tensor under torch.compile and torch.func or while
    somebody traces: an alpha schedule then causes neither a synchronisation nor a recompilation.
    Above 1, Python warns once.

    Raises:
        ValueError: alpha is not finite, negative, a tensor with dimensions, or differentiated.
        TypeError: alpha is neither a number nor a tensor.
    """
    if type(alpha) is float and 0.0 <= alpha <= 1.0:
        return alpha
    if isinstance(alpha, Tensor):
        if alpha.dim() != 0:
            raise ValueError(
                f"alpha must be a number or a 0-d tensor, not a tensor of shape "
                f"{tuple(alpha.shape)}; index one element or call .squeeze()"
            )
        if is_differentiated(alpha):
            raise ValueError(
                "alpha must not require a gradient, as it would get none: pass alpha.detach(). To "
                "learn alpha or to differentiate in it, take F.cross_entropy(alpha * input, "
                "target) / alpha, which has the same gradient in the input"
            )
        if torch.compiler.is_compiling():
            return alpha
        if alpha.device.type != "cpu" or not is_eager(alpha) or is_transformed():
            return alpha.detach()
    if not isinstance(alpha, (int, float)) and getattr(alpha, "shape", None) == ():
        if torch.compiler.is_compiling():  # an array of numpy is a tensor there
            return torch.as_tensor(alpha)
        alpha = alpha.item()  # of a tensor, or of numpy's scalars and 0-d arrays
    if isinstance(alpha, bool) or not isinstance(alpha, (Real, Decimal)):
        raise TypeError(f"alpha must be a number or a 0-d tensor, not {type(alpha).__name__}")
    try:
        number = float(alpha)
    except OverflowError:  # an integer of more than 300 digits
        number = math.inf
    if not 0.0 <= number < math.inf:
        raise ValueError(
            f"alpha must be finite and at least 0, got {alpha}; "
            f"1 is ordinary cross-entropy, the published values are 0.05 to 0.92"
        )
    if number > 1 and not torch.compiler.is_compiling():
        warnings.warn(
            f"alpha = {number:g} is above 1: the gradient sharpens p in the place of flattening "
            f"it; the published values are 0.05 to 0.92",
            stacklevel=1,  # one place for every caller, so that Python says it once
        )
    return number


def keep_alpha(alpha: Any) -> Alpha:
    """Check alpha for later calls: a number as a float, a tensor as it is.

    What a schedule writes to a tensor then counts from the next call on, on every device.

    Raises:
        ValueError, TypeError: as `check_alpha`.
    """
    number = check_alpha(alpha)
    return alpha.detach() if isinstance(alpha, Tensor) else number


def check_tensors(optional: tuple[str, ...] = (), **named: object) -> None:
    """Check that every argument is a tensor; an optional one may be None.

    Raises:
        TypeError: one is something else, such as numpy's array.
    """
    for name, value in named.items():
        if not (isinstance(value, Tensor) or (value is None and name in optional)):
            raise TypeError(
                f"{name} must be a tensor, not {type(value).__name__}; "
                "torch.as_tensor makes one of an array"
            )


def is_symbolic(*arguments: object) -> bool:
    """Whether one is no tensor but stands for one, as torch.fx's proxies do.

    A torch.autograd.Function leaves no trace on them, only the operations in it do: of a loss
    that is traced into, the derivative would be lost without a word. So `record` it.
    """
    # torch.compile has none, and cannot ask this of an array of numpy.
    return not torch.compiler.is_compiling() and any(
        not isinstance(argument, Tensor) and hasattr(type(argument), "__torch_function__")
        for argument in arguments
    )


def record(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What a symbolic argument makes of the call: of a proxy, a node of its graph."""
    given = (*arguments, *options.values())
    return handle_torch_function(function, given, *arguments, **options)


def refuse_onnx() -> None:
    """Refuse to be exported to ONNX, whose graphs hold operations and no gradient.

    Raises:
        NotImplementedError: torch.onnx.export is at work.
    """
    is_graph_made = is_jit_traced() or torch.compiler.is_exporting()
    if is_graph_made and torch.onnx.is_in_onnx_export():
        raise NotImplementedError(
            "a tampered loss cannot be exported to ONNX, whose graphs hold no gradient of their "
            "own: export the model without its loss, or, for the value alone, with "
            "torch.nn.functional's"
        )
