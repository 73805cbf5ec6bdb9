"""What a run prints before and after its batches: the head, the plan, the validation."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from softmax_gradient_tampering.data.factory import Dataset, untested_classes
from softmax_gradient_tampering.training.checkpoint.state import Circumstances, RunState
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.console.progress import as_clock
from softmax_gradient_tampering.training.measure.classes import unique_names
from softmax_gradient_tampering.training.measure.evaluation import Evaluation
from softmax_gradient_tampering.training.measure.evaluator import EpochEvaluation
from softmax_gradient_tampering.training.step.precision import Precision, is_slow_on_this_cpu
from softmax_gradient_tampering.training.step.schedule import Schedule, rate_of_unended_warmup

_MAX_RECALLS, _NUM_LOWEST = 12, 5  # classes whose recall is named: all of so many, else the lowest
_UNEVEN_POINTS = 1.0


def head_lines(circumstances: Circumstances, dataset: Dataset, model: nn.Module) -> list[str]:
    """The lines that are printed once, before training."""
    config, num_processes = circumstances.config, circumstances.num_processes
    class_weights = circumstances.class_weights
    num_parameters = sum(p.numel() for p in model.parameters())
    lines = []
    if not (config.data_dir or config.dataset or config.cifar):
        lines.append("No data given: training on scikit-learn's handwritten digits.")
    lines.append(
        f"{config.model}, {num_parameters:,} parameters, on {dataset.name}: "
        f"{dataset.num_train:,} training and {dataset.num_val:,} validation images, "
        f"{config.num_classes} classes"
    )
    untested = untested_classes(dataset)
    if untested and dataset.class_names:
        lines.append(_untested_line([dataset.class_names[label] for label in untested]))
    if config.holdout:
        lines.append(f"Validating on {config.holdout:.4g} of the training set, held out")
    ignored = _ignored_flags(config, dataset)
    if ignored:
        lines.append(f"Note: {dataset.name} is augmented in memory, without {', '.join(ignored)}.")
    if config.smoothing:
        lines.append(f"Smoothing: {config.smoothing}")
    if class_weights is not None:
        lines.append(_weights_line(class_weights, dataset.class_names))
    if config.modify_softmax:
        end = f" to {config.alpha_end}, {config.alpha_schedule}" if config.alpha_end else ""
        lines.append(f"Gradient tampering is active at softmax: {config.modify_softmax}{end}")
    if config.equivalent_to is not None:
        lines.append(f"Ordinary cross-entropy, re-set to equal alpha {config.equivalent_to}")
    global_batch = config.batch_size * num_processes
    if global_batch > dataset.num_train:
        lines.append(
            f"Warning: a batch of {global_batch} is larger than the {dataset.num_train} training "
            "images; every epoch is one batch of all of them."
        )
    return lines


def _untested_line(names: Sequence[str]) -> str:
    """That nothing is measured of some classes."""
    shown = ", ".join(unique_names(names[:_NUM_LOWEST]))
    more = f" and {len(names) - _NUM_LOWEST} more" * (len(names) > _NUM_LOWEST)
    return f"Warning: no validation image is of class {shown}{more}: nothing is measured of it"


def _weights_line(weights: Sequence[float], names: Sequence[str]) -> str:
    """What an image of each class counts; of many classes the least and the most."""
    shown = unique_names([names[n] if n < len(names) else str(n) for n in range(len(weights))])
    pairs = list(zip(weights, shown, strict=True))
    texts = [f"{name} {weight:.4g}" for weight, name in pairs]
    if len(pairs) > _MAX_RECALLS:
        texts = [f"{weight:.4g} ({name})" for weight, name in (min(pairs), max(pairs))]
        texts = [f"from {' to '.join(texts)}"]
    return f"An image counts by its class, the average one 1: {', '.join(texts)}"


def warning_lines(config: Config, num_epochs: int, precision: Precision) -> list[str]:
    """Warnings of settings that keep a run from learning, or from being as fast as was meant."""
    lines = []
    top = rate_of_unended_warmup(config, num_epochs)
    if top is not None and top < config.lr:
        lines.append(
            f"Warning: the warm-up of {config.warmup_epochs} epochs does not end within the "
            f"{num_epochs} epochs of the run: the learning rate rises to {top:.4g} and "
            f"never reaches --lr {config.lr:g}; give fewer --warmup-epochs"
        )
    if precision.device.type == "cpu" and is_slow_on_this_cpu(precision.dtype):
        dtype = str(precision.dtype).removeprefix("torch.")
        flag = "--amp-dtype" if config.amp_dtype else "--amp"
        lines.append(
            f"Warning: {flag}: this CPU has no instructions for {dtype}, in which training is "
            f"slower here than in float32; leave {flag} out, unless {dtype} itself is wanted"
        )
    return lines


def _ignored_flags(config: Config, dataset: Dataset) -> list[str]:
    """Flags given that images in folders would have obeyed, and images in memory do not."""
    if dataset.image_size is None:
        return []
    names = ["aa", "scale", "ratio", "color_jitter", "train_interpolation", "interpolation"]
    names += ["crop_pct"] + ["hflip", "vflip"] * (dataset.name == "digits")
    default = Config()
    given = [name for name in names if getattr(config, name) != getattr(default, name)]
    return [f"--{name.replace('_', '-')}" for name in given]


def plan_lines(
    config: Config, head: Sequence[str], num_batches: int, schedule: Schedule
) -> list[str]:
    """What a dry run shows: configuration, head, steps, schedule."""
    steps = -(-num_batches // config.grad_accum_steps)
    lines = [f"{name}: {value}" for name, value in sorted(vars(config).items())]
    lines += ["", *head]
    lines.append(
        f"{schedule.num_epochs} epochs of {num_batches} batches and {steps} optimizer steps"
    )
    lines.append("epoch,lr")
    for epoch in range(schedule.num_epochs):
        schedule.start_epoch(epoch)
        lines.append(f"{epoch},{schedule.current()!r}")
    return lines


def epoch_fields(found: EpochEvaluation) -> list[str]:
    """What is shown of an epoch's evaluation, the published field first."""
    fields = [_accuracy_field(found.model), f"Loss: {found.model.loss:.4f}"]
    if found.averaged is not None:
        fields.append(f"EMA Acc: {found.averaged.top1:.3f}")
    return fields


def summary_lines(
    config: Config, state: RunState, evaluation: Evaluation, folder: Path
) -> list[str]:
    """What a finished run shows last: accuracy, calibration, time, folder."""
    resumes = f", resumed {state.resumes} times" if state.resumes > 1 else ", resumed once"
    lines = [
        f"Finished: {state.position.epoch} epochs, {state.position.step} optimizer steps in "
        f"{as_clock(state.seconds)}{resumes * bool(state.resumes)}",
        f"Last epoch: top-1 {evaluation.top1:.2f} %  top-5 {evaluation.top5:.2f} %  "
        f"loss {evaluation.loss:.4f}",
    ]
    if not config.final_validate:  # which has printed them
        lines += measurement_lines(evaluation.measurements)
        lines += class_lines(evaluation) if _is_uneven(evaluation) else []
    if state.best:
        epoch, metric = state.best[0]
        shown = f"{metric:.4f}" if config.eval_metric == "loss" else f"{metric:.2f}"
        lines.append(f"*** Best metric: {shown} (epoch {epoch})")
    return [*lines, f"Run folder: {folder}"]


def _accuracy_field(evaluation: Evaluation) -> str:
    return f"Val Acc: {evaluation.num_correct:5d}, {evaluation.top1:.3f}"


def validation_lines(evaluation: Evaluation) -> list[str]:
    """The validation, in the published form, and its measurements."""
    norm, mean, peak, var = evaluation.logits
    metrics = [("loss", evaluation.loss), ("top1", evaluation.top1), ("top5", evaluation.top5)]
    return [
        _accuracy_field(evaluation),
        f"Metrics: OrderedDict({metrics})",
        f"LStat(norm, mean, max,var): {norm:.3f},{mean:.3f},{peak:.3f},{var:.3f}",
        *measurement_lines(evaluation.measurements),
        *class_lines(evaluation),
    ]


def class_lines(evaluation: Evaluation) -> list[str]:
    """The measures that count classes alike, and whether the accuracy is but the largest class's.

    Of few classes the recall of each is named, of many the lowest ones.
    """
    counts = evaluation.classes
    if counts is None:
        return []
    rows = [
        (recall, f"{name} {recall:.1f} % of {there}")
        for recall, name, there in zip(counts.recalls, counts.names, counts.samples, strict=True)
        if there
    ]
    what = "Recall"
    if len(rows) > _MAX_RECALLS:
        what = "Lowest recall"
        rows = sorted(rows, key=lambda row: row[0])[:_NUM_LOWEST]
    lines = [
        f"Balanced accuracy: {counts.balanced_accuracy:.2f} %  macro-F1: {counts.macro_f1:.2f} %",
        f"{what}: {', '.join(text for _, text in rows)}",
    ]
    if counts.is_near_largest(evaluation.top1):
        name = counts.names[counts.largest]
        lines.append(
            f"Warning: {counts.largest_share:.2f} % of the images are of class {name}: always "
            f"answering it would be right in as many, this model is right in "
            f"{evaluation.top1:.2f} %; the recalls say more than the accuracy"
        )
    return lines


def _is_uneven(evaluation: Evaluation) -> bool:
    """Whether the accuracy does not say about the same as the mean recall of the classes."""
    counts = evaluation.classes
    if counts is None:
        return False
    is_other = abs(counts.balanced_accuracy - evaluation.top1) >= _UNEVEN_POINTS
    return is_other or counts.is_near_largest(evaluation.top1)


def measurement_lines(measurements: dict[str, dict[str, float]]) -> list[str]:
    """NLL, Brier score and calibration error of every prediction measured, equal ones once."""
    lines = {
        f"NLL {m['nll']:.4f}  Brier {m['brier']:.4f}  ECE {m['ece']:.2f} %": name
        for name, m in reversed(measurements.items())
    }
    return [f"{name}: {line}" for line, name in reversed(lines.items())]
