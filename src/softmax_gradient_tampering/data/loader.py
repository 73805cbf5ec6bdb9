"""The one face of all loaders."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple, Protocol

from torch import Tensor

from softmax_gradient_tampering.data.order import BatchPlan

# What a loader calls about every second while a batch is awaited: with the seconds so far, and
# with what describes the wait. It may raise, to end the wait.
WhileWaiting = Callable[[float, Callable[[], str]], None]


def wait_on(_seconds: float, _describe: Callable[[], str]) -> None:
    """Wait for a batch in silence and without end."""


class Batch(NamedTuple):
    """images (n, C, H, W) ready for the model; targets (n,) indices or (n, classes).

    With augmentation splits, n is the batch size times the splits, the clean images first.
    """

    images: Tensor
    targets: Tensor
    labels: Tensor  # (n,) indices: the targets before any mixing


class Loader(Protocol):
    """Batches of an epoch, from any batch on.

    Attributes:
        batch_sizes: the size of every batch of an epoch, of this process.
        num_samples: samples that one epoch takes, of all processes.
    """

    batch_sizes: list[int]
    num_samples: int

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Iterate over the batches of an epoch from batch number `start` on."""
        ...

    def __len__(self) -> int:
        """Batches of an epoch."""
        ...

    def close(self) -> None:
        """End the worker processes of the loader, where it has any."""
        return


class TrainLoader(Loader, Protocol):
    """A loader of training batches, which can tell what is in one without loading it.

    Attributes:
        plan: how the order of an epoch is cut into batches.
    """

    plan: BatchPlan

    def begin_after(self, taken: int) -> None:
        """Cut the order of the coming epochs into batches from a sample on.

        Args:
            taken: samples that an epoch begun with batches of another size has behind it.
        """
        self.plan = replace(self.plan, taken=taken)
        self.batch_sizes = self.plan.sizes()

    def names(self, epoch: int, number: int) -> list[str]:
        """The samples of a batch, by file where they are files."""
        ...
