"""The bare PyTorch loop: the least code that trains as the program does.

It makes the same batches by the same arithmetic and updates the weights to the same
values; what the program does beyond that is what the benchmark measures.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softmax_gradient_tampering.data.memory.loaders import MemoryTrainLoader
from softmax_gradient_tampering.data.order import epoch_order

Criterion = Callable[[Tensor, Tensor], Tensor]


def scaled_cross_entropy(alpha: float) -> Criterion:
    """Torch's cross-entropy with the gradient of the tampered one; its value is another."""
    return lambda logits, labels: F.cross_entropy(alpha * logits, labels) / alpha


class BareLoop:
    """A model, its optimizer, and the step.

    Args:
        model: trained in place.
        like: the optimizer whose rate, momentum and weight decay are taken.
        criterion: of logits and labels.
        is_tallied: also add up the loss and the correct answers, without reading them.
    """

    def __init__(
        self,
        model: nn.Module,
        like: torch.optim.Optimizer,
        criterion: Criterion,
        is_tallied: bool = False,
    ) -> None:
        self.model = model.train()
        self.criterion = criterion
        self.is_tallied = is_tallied
        parameters = list(model.parameters())
        decay = like.defaults["weight_decay"] or max(g["weight_decay"] for g in like.param_groups)
        groups = [
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        ]
        lr, momentum = like.param_groups[0]["lr"], like.param_groups[0]["momentum"]
        self.optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=True)
        self.loss: Tensor | float = 0.0
        self.correct: Tensor | float = 0.0

    def step(self, images: Tensor, labels: Tensor) -> None:
        logits = self.model(images)
        loss = self.criterion(logits, labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.is_tallied:
            self.loss += loss.detach() * len(labels)
            self.correct += (logits.detach().argmax(1) == labels).sum()


class MemoryBatches:
    """The batches of the program's loader of data in memory, in a few lines.

    Args:
        loader: whose data, order and statistics are taken; it must not augment.
        channels_last: memory format of the images.
    """

    def __init__(self, loader: MemoryTrainLoader, channels_last: bool) -> None:
        shape = (1, -1, 1, 1)
        model_input = loader.model_input
        self.images, self.labels = loader.data.images, loader.data.labels
        self.batch_size, self.seed = loader.batch_sizes[0], model_input.seed
        self.device = model_input.device
        self.mean = torch.tensor(model_input.mean, device=self.device).mul(255).view(shape)
        self.std = torch.tensor(model_input.std, device=self.device).mul(255).view(shape)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = epoch_order(len(self.labels), self.seed, epoch)
        for indices in order.split(self.batch_size):
            images = self.images[indices].to(self.device, non_blocking=True)
            labels = self.labels[indices].to(self.device, non_blocking=True)
            images = images.to(torch.float32, memory_format=self.layout)
            yield images.sub_(self.mean).div_(self.std), labels
