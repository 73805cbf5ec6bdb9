"""How probable the labels are under a prediction: NLL, Brier score, calibration error."""

import torch
from torch import Tensor

from softmax_gradient_tampering.training.processes.distributed import Processes

NUM_BINS = 15


class Calibration:
    """Sums over batches and processes of what softmax(scale * z) says of the labels.

    Args:
        scale: factor of the logits: 1 for softmax(z), alpha for softmax(alpha z).
        device: where the logits are.
    """

    def __init__(self, scale: float, device: torch.device) -> None:
        self.scale = scale
        # Rows: samples, confidence, correct; a column for every bin of confidence.
        self._bins = torch.zeros(3, NUM_BINS, dtype=torch.float64, device=device)
        # NLL and Brier score.
        self._scores = torch.zeros(2, dtype=torch.float64, device=device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """logits (n, C) float, labels (n,)."""
        log_p = torch.log_softmax(self.scale * logits.double(), dim=1)
        p = log_p.exp()
        of_label = log_p.gather(1, labels[:, None]).squeeze(1)
        brier = (p**2).sum(1) - 2 * of_label.exp() + 1
        self._scores += torch.stack([-of_label.sum(), brier.sum()])
        confidence, predicted = p.max(1)
        number = (confidence * NUM_BINS).ceil().long().clamp(1, NUM_BINS) - 1
        sums = torch.stack(
            [torch.ones_like(confidence), confidence, (predicted == labels).double()]
        )
        self._bins.index_add_(1, number, sums)

    @property
    def bins(self) -> list[list[float]]:
        """Samples, sum of their confidences, and correct ones, in each bin of confidence."""
        rows: list[list[float]] = self._bins.tolist()
        return rows

    def result(self, processes: Processes | None = None) -> dict[str, float]:
        """nll (nats), brier (0 to 2) and ece (percent, 15 equal bins), over all samples.

        Args:
            processes: whose sums to add up; None for this one's alone.
        """
        bins, scores = self._bins, self._scores
        if processes is not None:
            bins, scores = processes.sum(bins), processes.sum(scores)
        num_samples = bins[0].sum()
        gap = (bins[1] - bins[2]).abs().sum() / num_samples
        nll, brier = (scores / num_samples).tolist()
        return {"nll": nll, "brier": brier, "ece": 100 * gap.item()}
