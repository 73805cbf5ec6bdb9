"""What an epoch's end measures: the model, its average, what training has zeroed."""

import copy
from contextlib import nullcontext
from dataclasses import dataclass, replace

from torch import nn

from softmax_gradient_tampering.data.loader import Loader
from softmax_gradient_tampering.loss.inference.head import find_classifier
from softmax_gradient_tampering.training.measure.evaluation import (
    AfterBatch,
    Evaluation,
    do_nothing,
    evaluate,
)
from softmax_gradient_tampering.training.measure.filter_norms import (
    FeatureNorms,
    filter_norms,
    num_zeroed,
)
from softmax_gradient_tampering.training.processes.distributed import Processes
from softmax_gradient_tampering.training.records.run_files import Row
from softmax_gradient_tampering.training.step.precision import Precision


@dataclass(frozen=True)
class EpochEvaluation:
    """The measurements of an epoch's end.

    Attributes:
        model, averaged: of the model and, where there is one, of its average.
        zeroed_filters, zeroed_features: how many, where --filter-norms asks for them.
    """

    model: Evaluation
    averaged: Evaluation | None
    zeroed_filters: int | None
    zeroed_features: int | None

    def metric(self, name: str) -> float:
        """What best checkpoints are chosen by: the average's where there is one."""
        return (self.averaged or self.model).metric(name)

    def columns(self, has_logits: bool) -> Row:
        """The columns of summary.csv that are measured here."""
        row: Row = {
            "eval_loss": self.model.loss,
            "eval_top1": self.model.top1,
            "eval_top5": self.model.top5,
            "zeroed_filters": self.zeroed_filters,
            "zeroed_features": self.zeroed_features,
        }
        if has_logits:
            names = ("logit_norm", "logit_mean", "logit_max", "logit_var")
            row |= dict(zip(names, self.model.logits, strict=True))
        if self.averaged is not None:
            row |= {"eval_loss_ema": self.averaged.loss, "eval_top1_ema": self.averaged.top1}
        return row


@dataclass(frozen=True)
class Evaluator:
    """Evaluates models on the validation set of a run.

    Attributes:
        loader: of the validation set.
        processes: of the run.
        precision: of the forward pass.
        alpha: of the prediction softmax(alpha z), whose calibration is measured.
        after_batch: called equally often by all processes; it may raise, to end an evaluation.
        class_names: of the data set, in the order of the labels, as far as they are known.
        counts_classes: whether the classes are counted by every evaluation, not by measured ones
            alone.
    """

    loader: Loader
    processes: Processes
    precision: Precision
    alpha: float
    after_batch: AfterBatch = do_nothing
    class_names: tuple[str, ...] = ()
    counts_classes: bool = False

    def evaluate(self, model: nn.Module, is_measured: bool = False) -> Evaluation:
        """Evaluate a model; measured, the calibration of its predictions and its classes too."""
        scales = [("softmax(z)", 1.0), ("softmax(alpha z)", self.alpha)] if is_measured else []
        asked = scales if is_measured or self.counts_classes else None
        found = evaluate(
            model, self.loader, self.processes, self.precision, asked, self.after_batch
        )
        if found.classes is None:
            return found
        return replace(found, classes=found.classes.named(self.class_names))

    def evaluate_epoch(
        self, model: nn.Module, average: nn.Module | None, is_measured: bool, counts_zeroed: bool
    ) -> EpochEvaluation:
        """Evaluate a model and, where there is one, its average.

        Args:
            model: the model.
            average: its average, on any device.
            is_measured: whether to measure the calibration of the model's predictions.
            counts_zeroed: whether to count filters and features that training has zeroed.
        """
        features = _feature_norms(model) if counts_zeroed else None
        with features.watch() if features else nullcontext():
            evaluation = self.evaluate(model, is_measured)
        averaged = None if average is None else self.evaluate(self._on_device(average))
        zeroed_filters = None
        if counts_zeroed:
            zeroed_filters = sum(map(num_zeroed, filter_norms(model).values()))
        zeroed_features = num_zeroed(features.total(self.processes)) if features else None
        return EpochEvaluation(evaluation, averaged, zeroed_filters, zeroed_features)

    def _on_device(self, average: nn.Module) -> nn.Module:
        """The average, where the images are; --model-ema-force-cpu keeps it elsewhere."""
        if next(average.parameters()).device.type == self.processes.device.type:
            return average
        return copy.deepcopy(average).to(self.processes.device)


def _feature_norms(model: nn.Module) -> FeatureNorms | None:
    """What counts zeroed features, where the classifier is linear."""
    try:
        return FeatureNorms(find_classifier(model))
    except ValueError:
        return None
