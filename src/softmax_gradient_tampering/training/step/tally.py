"""The sums over an epoch's samples: loss, correct predictions, count."""

from collections.abc import Sequence

import torch
from torch import Tensor

from softmax_gradient_tampering.training.processes.distributed import Processes
from softmax_gradient_tampering.training.step.trainer import Outcome


class Tally:
    """Sums over an epoch's samples, of this process, kept on the device until they are read."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.count: int | Tensor = 0  # a tensor where it depends on values of the device

    def add(self, outcome: Outcome) -> None:
        """Add a batch up, if it counts."""
        batch = outcome.batch
        labels = batch.labels if batch.targets.dim() == 1 else batch.targets.argmax(1)
        size = len(labels)
        logits = outcome.logits if len(outcome.logits) == size else outcome.logits[:size]
        correct = (logits.argmax(1) == labels).sum()
        if outcome.is_counted is None:
            self.loss.add_(outcome.loss, alpha=size)  # in float64
            self.correct += correct
            self.count += size
        else:  # without reading whether it is; a loss that is not has no product with 0
            loss = size * outcome.loss.double()
            self.loss += torch.where(outcome.is_counted, loss, 0.0)
            self.correct += outcome.is_counted * correct
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
        self.correct.fill_(int(state[1]))
        self.count = int(state[2])
