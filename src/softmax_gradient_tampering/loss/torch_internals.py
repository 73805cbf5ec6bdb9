"""Every name of torch that is private, each behind a function that says what it asks.

Torch has no public way to these. Whatever a new version changes of them is mended here, and
tests/loss/test_torch_internals.py says when.
"""

import torch
from torch import Tensor


def is_transformed() -> bool:
    """Whether a torch.func transform is active: its tensors have no memory and cannot be read."""
    return torch._C._are_functorch_transforms_active()


def is_batch_of_gradients(grad: Tensor) -> bool:
    """Whether a gradient stands for a whole batch of them (`is_grads_batched`)."""
    return torch._C._functorch.is_legacy_batchedtensor(grad)


def has_dispatch_mode() -> bool:
    """Whether a TorchDispatchMode is active: it traces or intercepts every operation."""
    return torch._C._len_torch_dispatch_stack() > 0


def log_softmax_backward(grad: Tensor, log_p: Tensor, dtype: torch.dtype) -> Tensor:
    """The gradient of the logits, from that of log_p = log_softmax(logits, -1) of this dtype."""
    return torch._log_softmax_backward_data(grad, log_p, -1, dtype)


def assert_on_device(condition: Tensor, message: str) -> None:
    """Fail, without waiting for the device, where a 0-d condition is false."""
    torch._assert_async(condition, message)


def flag_nonfinite_(gradients: list[Tensor], found: Tensor) -> None:
    """Set `found` (float32, one element) to 1 where a gradient holds inf or nan.

    It is the one pass that torch's GradScaler makes over gradients of one device and dtype; at
    the scale of 1 it leaves their values as they are.
    """
    one = torch.ones((), device=found.device)
    torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, one)
