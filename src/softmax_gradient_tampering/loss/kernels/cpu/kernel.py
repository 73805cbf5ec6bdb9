"""The contract of `reference`, fast on a CPU: the compiled code, or else torch's operations.

Which of the two is decided by the arguments and the machine alone, the same in both passes.
"""

from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha
from softmax_gradient_tampering.loss.kernels.contract import Kernel
from softmax_gradient_tampering.loss.kernels.cpu import blocks, native
from softmax_gradient_tampering.loss.kernels.options import Options


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
    return native if native.takes(z, target, alpha, options) else blocks
