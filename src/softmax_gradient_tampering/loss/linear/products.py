"""Matrix products that are summed in the compute dtype, and come out in it."""

import torch
from torch import Tensor

from softmax_gradient_tampering.loss.kernels.options import compute_dtype


def operand(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor as a product takes it: of half type only where the device sums in float32."""
    return tensor if has_mixed_product(tensor) else tensor.to(dtype)


def has_mixed_product(tensor: Tensor) -> bool:
    """Whether the device multiplies matrices of this half type and gives float32."""
    return (
        tensor.is_cuda
        and compute_dtype(tensor.dtype) != tensor.dtype
        and torch.version.hip is None
        and torch.cuda.get_device_capability(tensor.device) >= (8, 0)
    )


def product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """left @ right in `dtype`."""
    if left.dtype == dtype:
        return left @ right
    return torch.mm(left, right, out_dtype=dtype)
