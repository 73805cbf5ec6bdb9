"""What a run prints: the fields of a progress line, the plan, the validation."""

from collections.abc import Sequence
from pathlib import Path

import torch

from softmax_gradient_tampering.loss import logit_statistics
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.measure.evaluation import Evaluation
from softmax_gradient_tampering.training.setup.setup import Setup
from softmax_gradient_tampering.training.step.loop import Outcome


def batch_fields(
    setup: Setup, outcome: Outcome, loss: float, accuracy: float, images_per_s: float
) -> list[str]:
    """The fields of a progress line, as published but for the ETA."""
    fields = [
        f"Loss: {loss:.3f}",
        f"LR: {setup.schedule.current():.4f}",
        f"img/s:{int(images_per_s):5d}",
        f"Acc: {accuracy:5.2f}",
    ]
    if setup.config.logit_stats:
        statistics = setup.processes.sum(torch.stack(logit_statistics(outcome.logits)))
        norm, mean, peak, var = (statistics / setup.processes.number).tolist()
        fields.append(f"LStat: {norm:5.2f},{mean:4.2f},{peak:5.2f},{var:5.2f}")
    if outcome.grad_range is not None:
        bounds = setup.processes.gather(torch.stack(outcome.grad_range).tolist())
        low, high = min(low for low, _ in bounds), max(high for _, high in bounds)
        fields.append(f"GStat: {low:.2e},{high:.2e}")
    return fields


def save_images(path: Path, outcome: Outcome) -> None:
    """Save a batch's images as the model sees them, scaled to be visible."""
    from torchvision.utils import save_image

    save_image(outcome.batch.images, path, padding=0, normalize=True)


def head_lines(setup: Setup) -> list[str]:
    """What is said once, before training."""
    config, dataset = setup.config, setup.dataset
    num_parameters = sum(p.numel() for p in setup.model.parameters())
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
    ignored = _ignored_flags(setup)
    if ignored:
        lines.append(f"Note: {dataset.name} is augmented in memory, without {', '.join(ignored)}.")
    if config.smoothing:
        lines.append(f"Smoothing: {config.smoothing}")
    if config.modify_softmax:
        end = f" to {config.alpha_end}, {config.alpha_schedule}" if config.alpha_end else ""
        lines.append(f"Gradient tampering is active at softmax: {config.modify_softmax}{end}")
    if config.equivalent_to is not None:
        lines.append(f"Ordinary cross-entropy, re-set to equal alpha {config.equivalent_to}")
    global_batch = config.batch_size * setup.processes.number
    if global_batch > dataset.num_train:
        lines.append(
            f"Warning: a batch of {global_batch} is larger than the {dataset.num_train} training "
            "images; every epoch is one batch of all of them."
        )
    return lines


def _ignored_flags(setup: Setup) -> list[str]:
    """Flags given that images in folders would have obeyed, and images in memory do not."""
    if setup.dataset.image_size is None:
        return []
    names = ["aa", "scale", "ratio", "color_jitter", "train_interpolation", "interpolation"]
    names += ["crop_pct"] + ["hflip", "vflip"] * (setup.dataset.name == "digits")
    default = Config()
    given = [name for name in names if getattr(setup.config, name) != getattr(default, name)]
    return [f"--{name.replace('_', '-')}" for name in given]


def plan_lines(setup: Setup) -> list[str]:
    """What a dry run shows: configuration, parameters, steps, schedule."""
    config, loader = setup.config, setup.train_loader
    steps = -(-len(loader) // config.grad_accum_steps)
    lines = [f"{name}: {value}" for name, value in sorted(vars(config).items())]
    lines.append("")
    lines += head_lines(setup)
    lines.append(
        f"{setup.schedule.num_epochs} epochs of {len(loader)} batches and {steps} optimizer steps"
    )
    lines.append("epoch,lr")
    for epoch in range(setup.schedule.num_epochs):
        setup.schedule.start_epoch(epoch)
        lines.append(f"{epoch},{setup.schedule.current()!r}")
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
