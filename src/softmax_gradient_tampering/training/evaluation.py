"""One evaluation, for training, --validate and studies: exact on any number of processes."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from softmax_gradient_tampering.data import Loader
from softmax_gradient_tampering.loss import logit_statistics
from softmax_gradient_tampering.training.calibration import Calibration
from softmax_gradient_tampering.training.distributed import Processes
from softmax_gradient_tampering.training.precision import Precision


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found; accuracies in percent.

    Attributes:
        num_samples: samples evaluated, each once.
        num_correct: correct first predictions.
        loss: mean ordinary cross-entropy (alpha = 1, no smoothing).
        top1, top5: accuracy of the first and of the first five (or all) predictions.
        logits: the logits' statistics, averaged over the samples.
        measurements: by scale of the logits, nll, brier and ece; empty if not asked for.
    """

    num_samples: int
    num_correct: int
    loss: float
    top1: float
    top5: float
    logits: tuple[float, float, float, float]
    measurements: dict[str, dict[str, float]]

    def metric(self, name: str) -> float:
        return float({"top1": self.top1, "top5": self.top5, "loss": self.loss}[name])


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Loader,
    processes: Processes,
    precision: Precision,
    scales: Iterable[tuple[str, float]] = (),
) -> Evaluation:
    """Evaluate every sample of a loader's data set once, over all processes.

    Counts are summed as integers over shards without padding: the accuracies do not depend
    on the number of processes or the batch size, the loss and statistics up to rounding.

    Args:
        model: in any mode; it is put back into the one it was in.
        loader: an evaluation loader.
        processes: the run's processes.
        precision: of the forward pass; the loss and the statistics are float32.
        scales: (name, factor of the logits) to measure the calibration at.
    """
    device = processes.device
    counts = torch.zeros(3, dtype=torch.int64, device=device)  # samples, top-1, top-5
    sums = torch.zeros(5, dtype=torch.float64, device=device)  # loss, norm, mean, max, var
    calibrations = {name: Calibration(scale, device) for name, scale in scales}
    was_training = model.training
    model.eval()
    for images, _, labels in loader.epoch(0):
        with precision.forward():
            logits = model(images)
        logits = logits.float()
        ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        number = torch.full((), len(labels), device=device)
        counts += torch.stack([number, ranked[:, 0].sum(), ranked.sum()])
        loss = F.cross_entropy(logits, labels, reduction="none").double().sum()
        statistics = logit_statistics(logits)
        sums += torch.stack([loss, *(len(labels) * mean for mean in statistics)])
        for calibration in calibrations.values():
            calibration.add(logits, labels)
    model.train(was_training)

    num_samples, num_correct, num_top5 = processes.sum(counts).tolist()
    assert num_samples == loader.num_samples, f"{num_samples} of {loader.num_samples} evaluated"
    loss_mean, *logit_means = (processes.sum(sums) / num_samples).tolist()
    return Evaluation(
        num_samples=num_samples,
        num_correct=num_correct,
        loss=loss_mean,
        top1=100 * num_correct / num_samples,
        top5=100 * num_top5 / num_samples,
        logits=(logit_means[0], logit_means[1], logit_means[2], logit_means[3]),
        measurements={name: c.result(processes) for name, c in calibrations.items()},
    )
