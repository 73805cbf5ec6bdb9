"""One evaluation, for training, --validate and studies: exact on any number of processes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softmax_gradient_tampering.data.loader import Loader
from softmax_gradient_tampering.data.transfer import Prefetched
from softmax_gradient_tampering.loss import logit_statistics
from softmax_gradient_tampering.training.measure.calibration import Calibration
from softmax_gradient_tampering.training.measure.classes import (
    ClassCounts,
    counts_without_names,
)
from softmax_gradient_tampering.training.processes.distributed import Processes
from softmax_gradient_tampering.training.step.precision import Precision

_ENOUGH = 2**17  # logits that are counted at once: few calls for small nets, little memory
BALANCED_ACCURACY = "balanced-accuracy"  # of --eval-metric, as studies call it
AfterBatch = Callable[[int, int], None]  # the number of a batch, from 0, and how many there are


def do_nothing(number: int, num_batches: int) -> None:
    """What is called after a batch where nothing is to be done."""


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
        classes: how often each was there, was predicted, and rightly; None if not asked for.
    """

    num_samples: int
    num_correct: int
    loss: float
    top1: float
    top5: float
    logits: tuple[float, float, float, float]
    measurements: dict[str, dict[str, float]]
    classes: ClassCounts | None = None

    def metric(self, name: str) -> float:
        """What --eval-metric names; the classes are counted where it is about them."""
        if name == BALANCED_ACCURACY:
            assert self.classes is not None
            return self.classes.balanced_accuracy
        return float({"top1": self.top1, "top5": self.top5, "loss": self.loss}[name])


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Loader,
    processes: Processes,
    precision: Precision,
    scales: Iterable[tuple[str, float]] | None = None,
    after_batch: AfterBatch = do_nothing,
) -> Evaluation:
    """Evaluate every sample of a loader's data set once, over all processes.

    Counts are summed as integers: accuracies do not depend on the processes or the batches.

    Args:
        model: in any mode; it is put back into the one it was in.
        loader: an evaluation loader.
        processes: the run's processes.
        precision: of the forward pass; the loss and the statistics are float32.
        scales: (name, factor of the logits) to measure the calibration at; the classes are
            counted too, also where there is none. Without scales neither is done.
        after_batch: called equally often by all processes; it may raise, to end the evaluation.
    """
    totals, classes = _Totals(processes.device), _Classes(processes.device)
    calibrations = {name: Calibration(scale, processes.device) for name, scale in scales or ()}
    held: list[tuple[Tensor, Tensor]] = []
    # Shares differ by one sample, so that the last process may have a batch less.
    num_common = -processes.most([-len(loader)])[0]
    was_training = model.training
    model.eval()
    batches = Prefetched(loader.epoch(0), processes.device)
    try:
        for number, (images, _, labels) in enumerate(batches):
            held.append((predict(model, images, precision), labels))
            if number == len(loader) - 1 or sum(z.numel() for z, _ in held) >= _ENOUGH:
                logits, labels = map(torch.cat, zip(*held, strict=True))
                held.clear()
                totals.add(logits, labels)
                for calibration in calibrations.values():
                    calibration.add(logits, labels)
                if scales is not None:
                    classes.add(logits, labels)
            if number < num_common:
                after_batch(number, num_common)
    finally:
        model.train(was_training)

    measurements = {name: c.result(processes) for name, c in calibrations.items()}
    evaluation = totals.evaluation(processes, loader.num_samples, measurements)
    return evaluation if scales is None else replace(evaluation, classes=classes.counts(processes))


def predict(model: nn.Module, images: Tensor, precision: Precision) -> Tensor:
    """The logits of one batch, in float32."""
    with precision.forward():
        logits: Tensor = model(images)
    return logits.float()


class _Totals:
    """Sums over the samples of this process.

    Attributes:
        counts: samples, correct first predictions, correct among the first five: (3,) int64.
        sums: loss, and the logits' norm, mean, max, var: (5,) float64.
    """

    def __init__(self, device: torch.device) -> None:
        self.counts = torch.zeros(3, dtype=torch.int64, device=device)
        self.sums = torch.zeros(5, dtype=torch.float64, device=device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        # Of equal logits, as a net has that has died, topk's first is another than argmax's.
        is_first = logits.argmax(1) == labels
        ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        number = torch.full((), len(labels), device=logits.device)
        self.counts += torch.stack([number, is_first.sum(), (ranked.any(1) | is_first).sum()])
        loss = F.cross_entropy(logits, labels, reduction="none").double().sum()
        statistics = logit_statistics(logits)
        self.sums += torch.stack([loss, *(len(labels) * mean for mean in statistics)])

    def evaluation(
        self,
        processes: Processes,
        num_expected: int,
        measurements: dict[str, dict[str, float]],
    ) -> Evaluation:
        """The sums over all processes as what an evaluation found."""
        num_samples, num_correct, num_top5 = processes.sum(self.counts).tolist()
        assert num_samples == num_expected, f"{num_samples} of {num_expected} evaluated"
        loss, *logits = (processes.sum(self.sums) / num_samples).tolist()
        return Evaluation(
            num_samples=num_samples,
            num_correct=num_correct,
            loss=loss,
            top1=100 * num_correct / num_samples,
            top5=100 * num_top5 / num_samples,
            logits=(logits[0], logits[1], logits[2], logits[3]),
            measurements=measurements,
        )


class _Classes:
    """Counts of samples, predictions and right ones by class, of this process: (3, C) int64."""

    def __init__(self, device: torch.device) -> None:
        self._counts = torch.zeros(3, 0, dtype=torch.int64, device=device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """logits (n, C) float, labels (n,)."""
        self._widen(logits.shape[1])
        predicted = logits.argmax(1)
        for row, numbers in enumerate((labels, predicted, predicted[predicted == labels])):
            self._counts[row] += numbers.bincount(minlength=logits.shape[1])

    def counts(self, processes: Processes) -> ClassCounts:
        """Of all processes; one without samples does not know how many classes there are."""
        self._widen(processes.most([self._counts.shape[1]])[0])
        return counts_without_names(processes.sum(self._counts).tolist())

    def _widen(self, num_classes: int) -> None:
        missing = num_classes - self._counts.shape[1]
        self._counts = F.pad(self._counts, (0, missing))
