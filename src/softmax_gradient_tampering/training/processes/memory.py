"""Running out of memory, on the device or on the host, as one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from softmax_gradient_tampering.errors import MachineError, first_line


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory could not be allocated; torch has no class of its own for the host's."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


@contextmanager
def memory_as_one_line(batch_size: int, device: torch.device) -> Iterator[None]:
    """Turn running out of memory into a line that says what to try.

    Raises:
        MachineError: in the place of torch's and Python's own errors.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MachineError(
            f"out of memory on {device} at --batch-size {batch_size} ({first_line(error):.160}); "
            "try a smaller --batch-size with more --grad-accum-steps, --amp, smaller images, or "
            "fewer programs on the device; the checkpoints are kept, and --resume auto goes on"
        ) from error
