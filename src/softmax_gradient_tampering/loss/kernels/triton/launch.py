"""Launches of Triton's kernels that cost little of the CPU's time.

At every launch Triton finds out which of the compiled forms of a kernel its arguments take: some
40 us of Python. Here that is asked once for everything that could change the answer, and the
compiled kernel is called from then on.
"""

from collections.abc import Hashable
from typing import Any

import torch


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

    def __call__(self, num_programs: int, *arguments: Any) -> None:
        if self._compiled is not None:
            self._compiled[num_programs, 1, 1](*arguments, *self._constants)
            return
        # Triton's interpreter, which compiles nothing, gives None.
        self._compiled = self._kernel[num_programs, 1, 1](
            *arguments,
            *self._constants,
            num_warps=self._num_warps,
            # The assertion on labels stays in, those on integer overflow do not.
            debug=torch.version.hip is None,
            sanitize_overflow=False,
            enable_fp_fusion=True,  # Triton's default changes with its version
        )


def is_aligned(*tensors: torch.Tensor | None) -> tuple[bool, ...]:
    """Of every tensor that there is, whether its address is a multiple of 16 bytes."""
    return tuple(tensor.data_ptr() % 16 == 0 for tensor in tensors if tensor is not None)
