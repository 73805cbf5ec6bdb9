"""Where a run is."""

from dataclasses import dataclass


@dataclass
class Position:
    """Where a run is: `epoch` completed epochs, and `batch` batches of the next one.

    Attributes:
        step: optimizer steps.
        skipped_steps: of them, those left out because their gradient was not finite.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    skipped_steps: int = 0

    def count_batch(self, is_update: bool, is_skipped: bool) -> None:
        """Count a batch, and the optimizer step that it ended, if it did."""
        self.batch += 1
        self.step += is_update
        self.skipped_steps += is_skipped
