"""Kernels that know logits (N, C) alone, for those of further dimensions."""

from typing import NamedTuple, Protocol

from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels.options import Options, is_index


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


class RowWise(NamedTuple):
    """The contract for (N, C, d1, ...), by a kernel that has it for (N, C): rows are copied."""

    kernel: Kernel

    def forward(
        self, z: Tensor, target: Tensor, alpha: Alpha, options: Options
    ) -> tuple[Tensor, Tensor]:
        """See `reference.forward`."""
        loss, stats = self.kernel.forward(*_rows(z, target), alpha, options)
        return loss.reshape(z.shape[:1] + z.shape[2:]) if loss.dim() else loss, stats

    def backward(
        self,
        grad_loss: Tensor,
        z: Tensor,
        target: Tensor,
        alpha: Alpha,
        stats: Tensor,
        options: Options,
    ) -> Tensor:
        """See `reference.backward`; not differentiable."""
        incoming = grad_loss.flatten() if grad_loss.dim() else grad_loss
        grad = self.kernel.backward(incoming, *_rows(z, target), alpha, stats, options)
        return grad.view(z.shape[:1] + z.shape[2:] + z.shape[1:2]).movedim(-1, 1).contiguous()

    def stats_shape(self, z: Tensor, target: Tensor, options: Options) -> tuple[int, ...]:
        """See `reference.stats_shape`."""
        return self.kernel.stats_shape(*_rows(z, target), options)


def _rows(z: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N d1 ..., C), and their target of shape (N d1 ...,) or that of the logits."""
    target = target.flatten() if is_index(target) else target.movedim(1, -1).flatten(0, -2)
    return z.movedim(1, -1).flatten(0, -2), target
