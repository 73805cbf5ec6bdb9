"""What a run prints before and after its batches: the head, the plan, the validation."""

from collections.abc import Sequence

from torch import nn

from softmax_gradient_tampering.data.factory import Dataset
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.measure.evaluation import Evaluation
from softmax_gradient_tampering.training.step.schedule import Schedule


def head_lines(config: Config, dataset: Dataset, model: nn.Module, num_processes: int) -> list[str]:
    """The lines that are printed once, before training."""
    num_parameters = sum(p.numel() for p in model.parameters())
    lines = []
    if not (config.data_dir or config.dataset or config.cifar):
        lines.append("No data given: training on scikit-learn's handwritten digits.")
    lines.append(
        f"{config.model}, {num_parameters:,} parameters, on {dataset.name}: "
        f"{dataset.num_train:,} training and {dataset.num_val:,} validation images, "
        f"{config.num_classes} classes"
    )
    if config.holdout:
        lines.append(f"Validating on {config.holdout:.4g} of the training set, held out")
    ignored = _ignored_flags(config, dataset)
    if ignored:
        lines.append(f"Note: {dataset.name} is augmented in memory, without {', '.join(ignored)}.")
    if config.smoothing:
        lines.append(f"Smoothing: {config.smoothing}")
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


def validation_lines(evaluation: Evaluation) -> list[str]:
    """The validation, in the published form, and its measurements."""
    norm, mean, peak, var = evaluation.logits
    metrics = [("loss", evaluation.loss), ("top1", evaluation.top1), ("top5", evaluation.top5)]
    return [
        f"Val Acc: {evaluation.num_correct:5d}, {evaluation.top1:.3f}",
        f"Metrics: OrderedDict({metrics})",
        f"LStat(norm, mean, max,var): {norm:.3f},{mean:.3f},{peak:.3f},{var:.3f}",
        *measurement_lines(evaluation.measurements),
    ]


def measurement_lines(measurements: dict[str, dict[str, float]]) -> Sequence[str]:
    """NLL, Brier score and calibration error of every prediction measured."""
    return [
        f"{name}: NLL {m['nll']:.4f}  Brier {m['brier']:.4f}  ECE {m['ece']:.2f} %"
        for name, m in measurements.items()
    ]
