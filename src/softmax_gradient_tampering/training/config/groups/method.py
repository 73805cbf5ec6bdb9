"""The flags about the method."""

from dataclasses import dataclass

from softmax_gradient_tampering.training.config.class_weights import inline_class_weights
from softmax_gradient_tampering.training.config.flag import flag


@dataclass(frozen=True, kw_only=True)
class MethodFlags:
    """The flags about the method."""

    smoothing: float = flag(
        0.0, "label smoothing: the share of a target spread over all classes", unit="SHARE"
    )
    class_weights: str = flag(
        "",
        "how much the images of each class count in the training loss: balanced (as much together "
        "as those of any other class), or a CSV file with a line NAME,WEIGHT for every class, or "
        "WEIGHT alone in the order of the labels",
        unit="balanced|FILE",
        unset="all alike",
        read=inline_class_weights,
    )
    logit_stats: bool = flag(
        False, "print and record norm, mean, maximum and variance of the logits"
    )
    grad_stats: bool = flag(
        False, "print the smallest and largest gradient of the logits, without the loss scale"
    )
    loss_kernel: str = flag(
        "auto",
        "what computes the tampered loss: auto (the fastest for the device), reference, blocks, "
        "cpu or triton",
        unit="NAME",
        choices=("auto", "reference", "blocks", "cpu", "triton"),
    )
    alpha_schedule: str = flag(
        "constant",
        "how alpha goes from --modify-softmax to --alpha-end over the epochs: constant (it does "
        "not), linear or cosine",
        unit="NAME",
        choices=("constant", "linear", "cosine"),
    )
    alpha_end: float | None = flag(
        None, "alpha of the last epoch, with --alpha-schedule", unit="ALPHA", unset="no schedule"
    )
    equivalent_to: float | None = flag(
        None,
        "train with the ordinary cross-entropy, with initialisation, learning rates and weight "
        "decays of classifier and body set so as to equal --modify-softmax at this alpha",
        unit="ALPHA",
        unset="off",
    )
