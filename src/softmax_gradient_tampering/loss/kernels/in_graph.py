"""Few logits under torch.compile: one node of its graph, which it looks into only later.

What torch.compile reads of Python it checks again before every call, and for few logits these
checks take longer than the loss does. So of plain ones it reads no more than `takes`. Imported when
something is compiled, as it loads torch's compiler.
"""

from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import has_static_value

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels import compiled
from softmax_gradient_tampering.loss.kernels.options import Options
from softmax_gradient_tampering.loss.torch_internals import is_transformed_or_dual


def takes(logits: Tensor, target: Tensor, alpha: Alpha, options: tuple[object, ...]) -> bool:
    """Whether a call is that of few logits on a CPU, their labels and the default options.

    Args:
        logits, target, alpha: as the caller gives them.
        options: weight, ignore_index, reduction, label_smoothing and kernel, likewise.
    """
    weight, *others = options
    return (
        type(logits) is Tensor
        and type(target) is Tensor
        and logits.is_floating_point()
        and target.dtype is torch.int64
        and logits.dim() >= 2
        and target.shape == logits.shape[:1] + logits.shape[2:]
        and logits.device.type == target.device.type == "cpu"
        and logits.numel() <= compiled.FEW_LOGITS
        and weight
        is None  # never compared: torch.compile of 2.11 cannot compare a tensor with None
        and others == [-100, "mean", 0.0, "auto"]
        and type(alpha) is float
        and has_static_value(alpha)
        and 0.0 < alpha <= 1.0
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_exporting()
        and not is_transformed_or_dual()
    )


@torch.compiler.allow_in_graph
def cross_entropy_in_graph(logits: Tensor, target: Tensor, alpha: Alpha, *options: Any) -> Tensor:
    """The loss, whose gradient is tampered with; `options` are the fields of `Options` in order.

    What torch.compile looked into would lose the second derivative: where its graph runs as it is
    (backend "eager"), what was saved for the first one would pass for a constant.
    """
    return compiled.compiled_cross_entropy(logits, target, alpha, Options(*options))
