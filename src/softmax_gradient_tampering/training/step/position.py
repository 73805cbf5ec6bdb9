"""Where a run is."""

from dataclasses import dataclass


@dataclass
class Position:
    """Where a run is: `epoch` completed epochs, and `batch` batches of the next one.

    Attributes:
        taken: samples of the next epoch's order that its earlier batches, of another size, took:
            an epoch that was begun by another number of processes goes on after them.
        samples: of that order, those behind the run: `taken` and those of the batches.
        step: optimizer steps.
        skipped_steps: of them, those left out because their gradient was not finite.
    """

    epoch: int = 0
    batch: int = 0
    taken: int = 0
    samples: int = 0
    step: int = 0
    skipped_steps: int = 0

    def start_epoch(self, epoch: int) -> None:
        """Be at the start of an epoch, with so many completed ones."""
        self.epoch, self.batch, self.taken, self.samples = epoch, 0, 0, 0

    def go_on_after_samples(self) -> None:
        """Count the next epoch's batches anew from where it is, since they have another size."""
        self.taken, self.batch = self.samples, 0

    def count_batch(self, is_update: bool, is_skipped: bool, samples: int = 0) -> None:
        """Count a batch, and the optimizer step that it ended, if it did.

        Args:
            is_update: whether it ended an optimizer step.
            is_skipped: whether that step was left out.
            samples: of the epoch's order, those that are behind the run now.
        """
        self.batch += 1
        self.samples = samples
        self.step += is_update
        self.skipped_steps += is_skipped
