"""Every name of torch that is private, each behind a function that says what it asks.

Torch has no public way to these. Whatever a new version changes of them is mended here, and
tests/loss/test_torch_internals.py says when. At the end stands what is asked of several at once.
"""

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual
from torch.fx.experimental.proxy_tensor import get_proxy_mode

_ABOVE_AUTOGRAD = torch._C.DispatchKey.PreDispatch
_has_key = torch._C._dispatch_tls_is_dispatch_key_included
# Under names of their own, since the way to a name takes longer than the questions themselves.
_num_function_modes = torch._C._len_torch_function_stack
_num_dispatch_modes = torch._C._len_torch_dispatch_stack
_is_transformed = torch._C._are_functorch_transforms_active
_is_batch = torch._C._functorch.is_legacy_batchedtensor
_jit_trace = torch._C._get_tracing_state
_forward_mode = torch.autograd.forward_ad


def is_transformed() -> bool:
    """Whether a torch.func transform is active: its tensors have no memory and cannot be read."""
    return torch._C._are_functorch_transforms_active()


def is_functionalized() -> bool:
    """Whether torch.func.functionalize is one of the active transforms."""
    return "Functionalize" in _transforms()


def is_nested_forward_mode() -> bool:
    """Whether torch.func.jvp, or what is made of it, runs within another of them."""
    return _transforms().count("Jvp") > 1


def _transforms() -> list[str]:
    """The names of the active transforms, the outermost first."""
    return [level.key().name for level in torch._C._functorch.get_interpreter_stack() or ()]


def is_batch_of_gradients(grad: Tensor) -> bool:
    """Whether a gradient stands for a whole batch of them (`is_grads_batched`)."""
    return torch._C._functorch.is_legacy_batchedtensor(grad)


def is_all_zero(tensor: Tensor) -> bool:
    """Whether torch keeps only the promise that all is 0: such a tensor has no memory."""
    return torch._is_zerotensor(tensor)


def has_dispatch_mode() -> bool:
    """Whether a TorchDispatchMode is active: it traces or intercepts every operation.

    Those that trace above autograd are not on the stack of the others.
    """
    return torch._C._len_torch_dispatch_stack() > 0 or _has_key(_ABOVE_AUTOGRAD)


def assert_on_device(condition: Tensor, message: str) -> None:
    """Fail, without waiting for the device, where a 0-d condition is false."""
    torch._assert_async(condition, message)


def flag_nonfinite_(gradients: list[Tensor], found: Tensor) -> None:
    """Set `found` (float32, one element) to 1 where a gradient holds inf or nan.

    It is the one pass that torch's GradScaler makes over gradients of one device and dtype; at
    the scale of 1 it leaves their values as they are.
    """
    torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, _one(found.device))


@cache
def _one(device: torch.device) -> Tensor:
    return torch.ones((), dtype=torch.float32, device=device)


def below_autograd() -> AbstractContextManager[Any]:
    """Inside, the dispatcher passes over autograd: an operator's own formula records it."""
    return torch._C._AutoDispatchBelowAutograd()


def is_fake(tensor: Tensor) -> bool:
    """Whether it is a FakeTensor: with a shape, a dtype and a device, but without data."""
    return isinstance(tensor, torch._subclasses.FakeTensor)


def is_forward_mode() -> bool:
    """Whether a level of torch.autograd.forward_ad is open: tensors may be dual numbers."""
    return torch.autograd.forward_ad._current_level >= 0


def is_plain(*tensors: Tensor | None) -> bool:
    """Whether the tensors are ordinary ones: none of a class of its own, such as DTensor."""
    return all(
        tensor is None or type(tensor) in (Tensor, torch.nn.Parameter) or _is_plain_fake(tensor)
        for tensor in tensors
    )


def _is_plain_fake(tensor: Any) -> bool:
    """Whether it is a FakeTensor that carries no real one, as those of draft_export do.

    With these torch refuses every operator that is not its own and has an optional tensor.
    """
    return is_fake(tensor) and not tensor.fake_mode.propagate_real_tensors


def has_tangent(*tensors: Tensor | None) -> bool:
    """Whether one of the tensors is a dual number of torch.autograd.forward_ad."""
    return is_forward_mode() and any(
        tensor is not None and unpack_dual(tensor).tangent is not None for tensor in tensors
    )


def is_differentiated(tensor: Tensor) -> bool:
    """Whether a derivative with respect to it is wanted: by autograd, or by any active transform.

    Every transform wraps what it passes on, and its wrapper answers for this one alone: they are
    asked one after the other, from within. Compiled, only the innermost can be asked.
    """
    if tensor.requires_grad or has_tangent(tensor):
        return True
    if not is_transformed() or torch.compiler.is_compiling():
        return False
    innermost = torch._functorch.pyfunctorch.retrieve_current_functorch_interpreter()
    if torch._C._functorch.maybe_get_level(tensor) == innermost.level():
        tensor = torch._C._functorch.get_unwrapped(tensor)
    with innermost.lower():
        return is_differentiated(tensor)


def is_transformed_or_dual() -> bool:
    """Whether a torch.func transform is active, or a level of torch.autograd.forward_ad open."""
    level = torch.autograd.forward_ad._current_level
    return torch._C._are_functorch_transforms_active() or level >= 0


def is_unobserved() -> bool:
    """Whether an eager call reaches its kernel through nothing but autograd's own recording.

    That is: no mode, transform, trace or forward-mode AD. Asked before every plain loss, and so in
    one step, as `is_plain_gradient` is.
    """
    return not (
        _num_function_modes() > 0
        or _num_dispatch_modes() > 0
        or _has_key(_ABOVE_AUTOGRAD)
        or _is_transformed()
        or _forward_mode._current_level >= 0
        or _jit_trace() is not None
    )


def is_plain_gradient(grad: Tensor) -> bool:
    """Whether a gradient is an ordinary tensor that nobody wants to differentiate or traces."""
    return (
        type(grad) is Tensor
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and _num_dispatch_modes() == 0
        and not _has_key(_ABOVE_AUTOGRAD)
        and not _is_transformed()
        and not _is_batch(grad)
    )


def is_traced() -> bool:
    """Whether make_fx, or what is made of it, records operations into a graph."""
    return has_dispatch_mode() and get_proxy_mode() is not None


def is_jit_traced() -> bool:
    """Whether torch.jit.trace records operations."""
    return torch._C._get_tracing_state() is not None


def is_eager(tensor: Tensor) -> bool:
    """Whether nobody traces or intercepts: a tensor with data, no compiler, no dispatch mode."""
    return not (
        torch.compiler.is_compiling()
        or has_dispatch_mode()
        or tensor.is_meta
        or (type(tensor) is not Tensor and is_fake(tensor))
    )
