"""Whether losses and gradients are finite: computed on the device, read without waiting."""

from collections import deque
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from softmax_gradient_tampering.loss.torch_internals import flag_nonfinite_


def gradients_are_finite(parameters: Iterable[nn.Parameter]) -> Tensor | None:
    """A 0-d bool tensor: whether every gradient is finite; None where there are none.

    One pass of the kernel of torch's GradScaler, at a scale of 1, which leaves the values as
    they are: 20 times cheaper on small nets than norms of the gradients.
    """
    by_kind: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            kind = parameter.grad.device, parameter.grad.dtype
            by_kind.setdefault(kind, []).append(parameter.grad)
    flag = None
    for (device, _), gradients in by_kind.items():
        found = torch.zeros((), device=device)
        flag_nonfinite_(gradients, found)
        flag = found == 0 if flag is None else flag & (found == 0).to(flag.device)
    return flag


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
