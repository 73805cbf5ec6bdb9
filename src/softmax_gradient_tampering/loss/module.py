"""The tampered cross-entropy as a module: nn.CrossEntropyLoss with one more argument."""

from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from softmax_gradient_tampering.loss.alpha import Alpha, keep_alpha
from softmax_gradient_tampering.loss.functional import tampered_cross_entropy


class TamperedCrossEntropyLoss(nn.CrossEntropyLoss):
    """`nn.CrossEntropyLoss` with a tampered gradient; see `tampered_cross_entropy`.

    Args:
        alpha: the exponent of the power transform, >= 0; may be set anew at any time, and a 0-d
            tensor may be written to.
        weight: (C,) weight of every class; a buffer, so it moves with the module.
        ignore_index: class index that does not count.
        reduction: "mean", "sum" or "none".
        label_smoothing: in [0, 1].
        kernel: "auto", "reference", "cpu" or "triton".

    Raises:
        ValueError: alpha is negative, not finite, a tensor with dimensions, or requires a
            gradient.

    >>> loss_fn = TamperedCrossEntropyLoss(alpha=0.25, label_smoothing=0.1)
    >>> loss_fn(torch.zeros(2, 5), torch.tensor([0, 4]))
    tensor(1.6094)

    Source: arXiv 2111.12495, section 3.
    """

    def __init__(
        self,
        alpha: Alpha,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        kernel: str = "auto",
    ) -> None:
        super().__init__(
            weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
        )
        self._alpha = self._compiled_alpha = keep_alpha(alpha)
        self.kernel = kernel

    @property
    def alpha(self) -> Alpha:
        """The exponent; a value set anew is checked in the next call.

        To torch.compile it is a constant until it is set anew. From then on a number is an input
        of the graph, so that no further one compiles again.
        """
        return self._alpha

    @alpha.setter
    def alpha(self, alpha: Alpha) -> None:
        self._alpha = self._compiled_alpha = alpha
        if type(alpha) is float and alpha >= 0:
            self._compiled_alpha = torch.tensor(alpha, dtype=torch.float64, device="cpu")

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "alpha" and isinstance(value, nn.Parameter | nn.Buffer):
            value = keep_alpha(value)  # a module would make it one of its own, saved with it
        super().__setattr__(name, value)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of logits (N, C, ...) against class indices or probabilities."""
        return tampered_cross_entropy(
            input,
            target,
            self._compiled_alpha if torch.compiler.is_compiling() else self._alpha,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
            kernel=self.kernel,
        )

    def extra_repr(self) -> str:
        return (
            f"alpha={self.alpha}, ignore_index={self.ignore_index}, "
            f"reduction={self.reduction!r}, label_smoothing={self.label_smoothing}"
        )

    def __prepare_scriptable__(self) -> NoReturn:
        raise TypeError(
            "TorchScript cannot compile TamperedCrossEntropyLoss, whose gradient is written in "
            "Python; use torch.compile or torch.export, or leave the loss out of what is scripted"
        )
