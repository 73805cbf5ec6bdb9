"""The contract of every kernel, as a type; `reference` says what it means."""

from typing import Protocol

from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels.options import Options


class Kernel(Protocol):
    """The contract, described in `reference`."""

    def forward(
        self, z: Tensor, target: Tensor, alpha: Alpha, options: Options
    ) -> tuple[Tensor, Tensor]: ...

    def backward(
        self,
        grad_loss: Tensor,
        z: Tensor,
        target: Tensor,
        alpha: Alpha,
        stats: Tensor,
        options: Options,
    ) -> Tensor: ...

    def stats_shape(self, z: Tensor, target: Tensor, options: Options) -> tuple[int, ...]: ...
