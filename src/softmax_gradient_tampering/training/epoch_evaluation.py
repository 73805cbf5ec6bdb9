"""What an epoch's end measures: the model, its average, what training has zeroed."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

from torch import nn

from softmax_gradient_tampering.loss.inference.head import find_classifier
from softmax_gradient_tampering.training.measure.evaluation import Evaluation, evaluate
from softmax_gradient_tampering.training.measure.filter_norms import (
    FeatureNorms,
    filter_norms,
    num_zeroed,
)
from softmax_gradient_tampering.training.records.run_files import Row
from softmax_gradient_tampering.training.setup.setup import Setup


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


def evaluate_epoch(
    setup: Setup, is_measured: bool, after_batch: Callable[[], None]
) -> EpochEvaluation:
    """Evaluate the model of a run, and its average; measured, the model's calibration too."""
    features = _feature_norms(setup)
    with features.watch() if features else nullcontext():
        evaluation = evaluate_model(setup, setup.model, is_measured, after_batch)
    averaged = None
    if setup.ema is not None:
        averaged = evaluate_model(setup, _averaged(setup), after_batch=after_batch)
    zeroed_filters = None
    if setup.config.filter_norms:
        zeroed_filters = sum(map(num_zeroed, filter_norms(setup.model).values()))
    zeroed_features = num_zeroed(features.total(setup.processes)) if features else None
    return EpochEvaluation(evaluation, averaged, zeroed_filters, zeroed_features)


def evaluate_model(
    setup: Setup,
    model: nn.Module,
    is_measured: bool = False,
    after_batch: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Evaluate a model on a run's validation set; measured, the calibration too."""
    scales = {"softmax(z)": 1.0, "softmax(alpha z)": setup.alpha} if is_measured else {}
    precision = setup.trainer.precision
    return evaluate(
        model, setup.eval_loader, setup.processes, precision, scales.items(), after_batch
    )


def _feature_norms(setup: Setup) -> FeatureNorms | None:
    """What counts zeroed features, where that is asked for and the classifier is linear."""
    if not setup.config.filter_norms:
        return None
    try:
        return FeatureNorms(find_classifier(setup.model))
    except ValueError:
        return None


def _averaged(setup: Setup) -> nn.Module:
    """The averaged model, where the images are."""
    assert setup.ema is not None
    model: nn.Module = setup.ema.module
    if setup.config.model_ema_force_cpu and setup.processes.device.type != "cpu":
        model = copy.deepcopy(model).to(setup.processes.device)
    return model
