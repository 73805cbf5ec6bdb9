"""Whether losses and gradients are finite: computed on the device, read without waiting."""

from collections import deque
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from softmax_gradient_tampering.loss.torch_internals import flag_nonfinite_


def are_finite(losses: Sequence[Tensor], gradients: Iterable[Tensor | None] = ()) -> Tensor:
    """A 0-d bool tensor on the losses' device: whether all losses and gradients are finite.

    One pass of the kernel of torch's GradScaler, at a scale of 1, which leaves the values as
    they are: 20 times cheaper on small nets than norms of the gradients.

    Args:
        losses: 0-d, at least one.
        gradients: of parameters; None of a parameter without one.
    """
    by_kind: dict[tuple[int, torch.dtype], list[Tensor]] = {}
    for tensor in (*losses, *gradients):
        if tensor is not None:  # the device's number takes a tenth of the time of the device
            by_kind.setdefault((tensor.get_device(), tensor.dtype), []).append(tensor)
    flags = []
    for tensors in by_kind.values():
        found = _found(tensors[0].device).zero_()
        flag_nonfinite_(tensors, found)
        flags.append((found == 0).to(losses[0].device))
    return flags[0] if len(flags) == 1 else torch.stack(flags).all()


@cache
def _found(device: torch.device) -> Tensor:
    """What is written to and read again in every step of a device: of a small net calls count."""
    return torch.zeros((), dtype=torch.float32, device=device)


class LateReader:
    """Reads 0-d bool tensors in their order, one step late where reading would wait.

    On a GPU the value is copied to the host while the next step is prepared; on a CPU it is
    there at once.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_late = device.type == "cuda"
        self._unread: deque[tuple[Any, Tensor, Any]] = deque()

    def push(self, what: Any, flag: Tensor) -> None:
        """Enter a value, and the object that it belongs to."""
        event = None
        if self._is_late:
            flag = flag.to("cpu", non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._unread.append((what, flag, event))

    def first_false(self, is_last: bool = False) -> Any | None:
        """The first object whose value is false, of those that are due, or at the last of all."""
        while len(self._unread) > (0 if is_last else int(self._is_late)):
            what, flag, event = self._unread.popleft()
            if event is not None:
                event.synchronize()
            if not flag:
                return what
        return None
