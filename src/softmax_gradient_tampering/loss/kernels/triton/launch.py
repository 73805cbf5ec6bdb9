"""Launches of Triton's kernels that cost little of the CPU's time.

At every launch Triton finds out which of the compiled forms of a kernel its arguments take: some
40 us of Python. Here that is asked once for everything that could change the answer, and the
compiled kernel is called from then on.
"""

from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton

_NOWHERE_ELSE = nullcontext()


class Launcher:
    """A kernel with all that is known when it is compiled.

    Args:
        kernel: Triton's function.
        constants: its last arguments, which are known when it is compiled.
        num_warps: of a program.

    Two launches of one launcher must not differ in what Triton specialises a kernel on: dtypes,
    device, which tensors are None, whether addresses and integers are multiples of 16, or 1, or
    beyond 32 bits.
    """

    def __init__(self, kernel: Any, constants: tuple[Hashable, ...], num_warps: int) -> None:
        self._kernel, self._constants, self._num_warps = kernel, constants, num_warps
        self._compiled: Any = None
        self._device = -1

    def __call__(self, num_programs: int, *arguments: Any) -> None:
        compiled = self._compiled
        if compiled is None:
            self._compile(num_programs, arguments)
        elif _has_hooks():
            compiled[num_programs, 1, 1](*arguments, *self._constants)
        else:  # as torch's own compiler launches what it compiles
            stream = triton.runtime.driver.active.get_current_stream(self._device)
            compiled.run(
                num_programs, 1, 1, stream, compiled.function, compiled.packed_metadata,
                None, None, None, *arguments, *self._constants,
            )  # fmt: skip

    def _compile(self, num_programs: int, arguments: tuple[Any, ...]) -> None:
        """Launch it for the first time. Triton's interpreter compiles nothing, and gives None."""
        self._device = arguments[0].get_device()
        self._compiled = self._kernel[num_programs, 1, 1](
            *arguments,
            *self._constants,
            num_warps=self._num_warps,
            # The assertion on labels stays in, those on integer overflow do not.
            debug=torch.version.hip is None,
            sanitize_overflow=False,
            enable_fp_fusion=True,  # Triton's default changes with its version
        )


def _has_hooks() -> bool:
    """Whether somebody, such as Triton's profiler, is to be told of every launch."""
    runtime = triton.knobs.runtime
    hooks = runtime.launch_enter_hook, runtime.launch_exit_hook
    return any(getattr(hook, "calls", hook) for hook in hooks)


def is_aligned(*tensors: torch.Tensor | None) -> tuple[bool, ...]:
    """Of every tensor that there is, whether its address is a multiple of 16 bytes."""
    return tuple(tensor.data_ptr() % 16 == 0 for tensor in tensors if tensor is not None)


def on_device_of(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """Inside, a launch goes to the tensor's device."""
    if not tensor.is_cuda or tensor.get_device() == torch.cuda.current_device():
        return _NOWHERE_ELSE
    return torch.cuda.device_of(tensor)
