"""Logits and labels of a CPU to which nothing has to be done before a kernel takes them.

Of few logits every step of Python counts: a kernel has a class for these, of which one object goes
from the forward to the backward pass, for float32 logits and the default options alone.
"""

import torch
from torch import Tensor


class PlainLogits:
    """What a kernel's class of that kind begins with; the kernels add `forward` and `backward`."""

    __slots__ = ("_addresses", "_shape")

    def __init__(self, z: Tensor, target: Tensor) -> None:
        self._shape, self._addresses = z.shape, (z.data_ptr(), target.data_ptr())

    @staticmethod
    def takes(z: Tensor, target: Tensor) -> bool:
        """Whether these are tensors of that kind."""
        return (
            z.dtype is torch.float32
            and target.dtype is torch.int64
            and z.dim() >= 2
            and z.is_cpu
            and target.is_cpu
            and z.layout is torch.strided
            and target.layout is torch.strided
            and z.is_contiguous()
            and target.is_contiguous()
            and not z.is_neg()
            and target.shape == z.shape[:1] + z.shape[2:]
            # An address of 0 is that of no numbers, or of torch's promise that all of them are 0.
            and z.data_ptr() != 0
            and target.data_ptr() != 0
        )

    def holds(self, z: Tensor, target: Tensor) -> bool:
        """Whether these tensors are those that it was made of."""
        return (
            (z.data_ptr(), target.data_ptr()) == self._addresses
            and z.shape == self._shape
            and z.is_contiguous()
        )

    @property
    def stats(self) -> Tensor:
        """What the kernel returns beside the loss."""
        raise NotImplementedError

    def forward(self, z: Tensor, target: Tensor) -> Tensor:
        """The loss."""
        raise NotImplementedError

    def backward(self, grad_loss: Tensor, z: Tensor, target: Tensor, alpha: float) -> Tensor:
        """The gradient, after `forward`."""
        raise NotImplementedError
