"""The sums over an epoch's samples: loss, correct predictions, count."""

from collections.abc import Sequence

import torch
from torch import Tensor

from softmax_gradient_tampering.training.processes.distributed import Processes
from softmax_gradient_tampering.training.step.trainer import Outcome

_ENOUGH = 2**17  # logits that are compared at once: few calls for small nets, little memory


class Tally:
    """Sums over an epoch's samples, of this process, kept on the device until they are read."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.count: int | Tensor = 0  # a tensor where it depends on values of the device
        self._correct = torch.zeros((), dtype=torch.int64, device=device)
        # Logits and labels that are not compared yet. On a GPU they are at once: a graph of the
        # model's may write its next logits over them.
        self._held: list[tuple[Tensor, Tensor]] = []
        self._num_held = 0
        self._num_enough = _ENOUGH if device.type == "cpu" else 0

    @property
    def correct(self) -> Tensor:
        """The number of correct predictions, 0-d int64."""
        for logits, labels in _joined(self._held):
            self._correct += _num_correct(logits, labels)
        self._held.clear()
        self._num_held = 0
        return self._correct

    def add(self, outcome: Outcome) -> None:
        """Add a batch up, if it counts."""
        batch = outcome.batch
        labels = batch.labels if batch.targets.dim() == 1 else batch.targets.argmax(1)
        size = len(labels)
        logits = outcome.logits if len(outcome.logits) == size else outcome.logits[:size]
        if outcome.is_counted is None:
            self.loss.add_(outcome.loss, alpha=size)  # in float64
            self.count += size
            self._held.append((logits, labels))
            self._num_held += logits.numel()
            if self._num_held >= self._num_enough:
                _ = self.correct
        else:  # without reading whether it is; a loss that is not has no product with 0
            loss = size * outcome.loss.double()
            self.loss += torch.where(outcome.is_counted, loss, 0.0)
            self._correct += outcome.is_counted * _num_correct(logits, labels)
            self.count = self.count + size * outcome.is_counted

    def means(self, processes: Processes) -> tuple[float, float]:
        """The mean loss and the accuracy in percent, over all processes; 0 of no samples."""
        loss, correct, count = self.total(processes)
        count = max(count, 1)  # every step so far may have been skipped
        return loss / count, 100 * correct / count

    def total(self, processes: Processes) -> list[float]:
        """Loss, correct and count, summed over all processes."""
        count = torch.zeros_like(self.loss) + self.count
        return processes.sum(torch.stack([self.loss, self.correct.double(), count])).tolist()

    def state(self) -> list[float]:
        """Loss, correct and count of this process, for a checkpoint."""
        return [self.loss.item(), self.correct.item(), int(self.count)]

    def restore(self, states: Sequence[Sequence[float]], processes: Processes) -> None:
        """Go on from the states of all processes in a checkpoint, or from nothing without any."""
        if len(states) == processes.number:
            state = states[processes.rank]
        elif states and processes.is_first:  # another number of processes made them
            state = [sum(column) for column in zip(*states, strict=True)]
        else:
            return
        self.loss.fill_(state[0])
        self._correct.fill_(int(state[1]))
        self.count = int(state[2])


def _joined(batches: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """Batches of logits and labels as one; one alone is not copied."""
    if len(batches) < 2:
        return batches
    logits, labels = zip(*batches, strict=True)
    return [(torch.cat(logits), torch.cat(labels))]


def _num_correct(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(1) == labels).sum()
