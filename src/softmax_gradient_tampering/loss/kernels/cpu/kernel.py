"""The contract of `reference`, fast on a CPU: the compiled code, or else torch's operations.

Which of the two is decided by the arguments and the machine alone, the same in both passes.
"""

from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels.cpu import blocks, native
from softmax_gradient_tampering.loss.kernels.options import Options
from softmax_gradient_tampering.loss.kernels.rows import Kernel, RowWise


def forward(z: Tensor, target: Tensor, alpha: Alpha, options: Options) -> tuple[Tensor, Tensor]:
    """See `reference.forward`."""
    return _choose(z, target, alpha, options).forward(z, target, alpha, options)


def backward(
    grad_loss: Tensor, z: Tensor, target: Tensor, alpha: Alpha, stats: Tensor, options: Options
) -> Tensor:
    """See `reference.backward`; not differentiable."""
    kernel = _choose(z, target, alpha, options)
    return kernel.backward(grad_loss, z, target, alpha, stats, options)


def stats_shape(z: Tensor, target: Tensor, options: Options) -> tuple[int, ...]:
    """See `reference.stats_shape`."""
    return ()


def _choose(z: Tensor, target: Tensor, alpha: Alpha, options: Options) -> Kernel:
    is_compiled = native.takes(z, target, alpha, options)
    # In memory, channels_last images are rows of classes already.
    if is_compiled and (z.dim() == 2 or not z.movedim(1, -1).is_contiguous()):
        return native
    kernel: Kernel = native if is_compiled else blocks
    return kernel if z.dim() == 2 else RowWise(kernel)
