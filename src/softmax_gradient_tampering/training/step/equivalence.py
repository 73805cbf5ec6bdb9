"""The ordinary training that equals a tampered one: --equivalent-to, the control of studies.

The identity, its factors and the initial head are the loss's own (`loss.equivalence`); here they
meet the program's optimizers, timm's groups and schedules, and the messages of its flags.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.loss.equivalence import (
    ADAMW_EPS,
    Factors,
    Groups,
    factors,
    scale_initial_head,
    split_groups,
)
from softmax_gradient_tampering.loss.inference.head import find_classifier
from softmax_gradient_tampering.training.config.fields import Config

# The program's names of optimizers, and those that the identity is known for.
_OPTIMIZERS = {"sgd": "sgd", "nesterov": "sgd", "momentum": "sgd", "adamw": "adamw"}
_SEED = 0


def scale_head(model: nn.Module, alpha: float, image: Tensor) -> None:
    """Multiply the initial weights of the head by alpha, in place.

    Args:
        model: whose logits are one final linear layer's.
        alpha: of the tampered training.
        image: (1, C, H, W) any input, to see that the logits are alpha times as large then.

    Raises:
        UserError: they are not; the identity does not hold for this model.
    """
    try:
        scale_initial_head(model, alpha, find_classifier(model), image)
    except ValueError as error:
        raise UserError(
            f"--equivalent-to {alpha} does not hold for this model: its logits are not those of "
            "one final linear layer"
        ) from error


def noise_image(size: tuple[int, int, int], device: torch.device) -> Tensor:
    """(1, C, H, W) of fixed normal numbers, drawn beside the generators in use."""
    generator = torch.Generator().manual_seed(_SEED)
    return torch.randn(1, *size, generator=generator).to(device)


def group_parameters(config: Config) -> Callable[[nn.Module], Groups]:
    """What makes the optimizer's groups of a model: timm's, each split into head and body.

    timm's schedules multiply a group's rate, warm-up and lower bound included, by `lr_scale`.

    Raises:
        UserError: no identity is known for the optimizer.
    """
    alpha, opt = config.equivalent_to, config.opt
    assert alpha is not None
    if opt not in _OPTIMIZERS:
        raise UserError(
            f"--equivalent-to {alpha} does not hold with --opt {opt}: the identity is known for "
            "sgd, momentum and adamw"
        )
    by = factors(_OPTIMIZERS[opt], alpha)
    first: dict[str, Any] = {"lr_scale": 1.0}
    if opt == "adamw":
        first["eps"] = ADAMW_EPS if config.opt_eps is None else config.opt_eps

    def make_groups(model: nn.Module) -> Groups:
        excluded: set[str] = getattr(model, "no_weight_decay", set)()
        groups = param_groups_weight_decay(
            model, config.weight_decay, no_weight_decay_list=excluded
        )
        of_head, of_body = map(_of_timms_names, by)
        return split_groups(
            [first | group for group in groups], [find_classifier(model)], of_head, of_body
        )

    return make_groups


def scale_of_clipping(model: nn.Module, alpha: float, parameters: Sequence[nn.Parameter]) -> float:
    """The factor of the threshold of adaptive clipping, which is one of gradients to weights.

    Below the head the ordinary gradient is alpha times the tampered one, and the weights are the
    same. The head's gradient is the same, and its weights are not.

    Args:
        model: whose gradients are clipped.
        alpha: of the tampered training.
        parameters: that the clipping covers.

    Raises:
        UserError: the head is among them, for which there is no such factor.
    """
    head = {id(parameter) for parameter in find_classifier(model).parameters()}
    if any(id(parameter) in head for parameter in parameters):
        raise UserError(
            f"--equivalent-to {alpha} does not hold with --clip-mode agc for this model: its "
            "classifier is clipped too, as it does not hold the last two parameters"
        )
    return alpha


def _of_timms_names(by: Factors) -> dict[str, float]:
    return {"lr_scale": by.lr, "weight_decay": by.weight_decay, "eps": by.eps}
