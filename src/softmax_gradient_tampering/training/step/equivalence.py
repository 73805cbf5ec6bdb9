"""The ordinary training that equals a tampered one: --equivalent-to, the control of studies.

With z the logits of the tampered training at (lr, wd), and `head` the linear layer that gives
them, the ordinary cross-entropy follows it step for step, with z_ordinary = alpha * z, at

                     initialisation    learning rate    weight decay    eps
    SGD    head      * alpha           lr * alpha       wd / alpha
           body                        lr / alpha       wd * alpha
    AdamW  head      * alpha           lr * alpha       wd / alpha      eps
           body                        lr               wd              eps * alpha

The gradients of the body are alpha times as large as under tampering; the rates undo that for
SGD, and AdamW's own scaling does where its eps is scaled too. Where alpha is a power of two, all
of these products are exact, and the two trainings agree bit by bit.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.loss.inference.head import find_classifier
from softmax_gradient_tampering.training.config.fields import Config

_SGD = ("sgd", "nesterov", "momentum")
_ADAMW_EPS = 1e-8
_SEED = 0
# Of logits in float32: far above their rounding, far below what another head would show.
_TOLERANCE = 1e-3

Groups = list[dict[str, Any]]


class Factors(NamedTuple):
    """By what a part of the net is re-set; the learning rate's works on the whole schedule."""

    lr: float
    weight_decay: float
    eps: float = 1.0


def factors(opt: str, alpha: float) -> tuple[Factors, Factors]:
    """The factors of (head, body) for an optimizer.

    Raises:
        UserError: no identity is known for the optimizer.
    """
    if opt in _SGD:
        return Factors(alpha, 1 / alpha), Factors(1 / alpha, alpha)
    if opt == "adamw":
        return Factors(alpha, 1 / alpha), Factors(1.0, 1.0, eps=alpha)
    raise UserError(
        f"--equivalent-to {alpha} does not hold with --opt {opt}: the identity is known for sgd, "
        "momentum and adamw"
    )


@torch.no_grad()
def scale_head(model: nn.Module, alpha: float, image: Tensor) -> None:
    """Multiply the initial weights of the head by alpha, in place.

    Args:
        model: whose logits are one final linear layer's.
        alpha: of the tampered training.
        image: (1, C, H, W) any input, to see that the logits are alpha times as large then.

    Raises:
        UserError: they are not; the identity does not hold for this model.
    """
    reason = "its logits are not those of one final linear layer"
    try:
        head = find_classifier(model)
    except ValueError as error:
        raise UserError(
            f"--equivalent-to {alpha} does not hold for this model: {reason}"
        ) from error
    was_training = model.training
    model.eval()
    before = model(image)
    for parameter in head.parameters():
        parameter.mul_(alpha)
    after = model(image)
    model.train(was_training)
    largest = float(before.abs().max())
    if not float((after - alpha * before).abs().max()) <= _TOLERANCE * alpha * largest:
        raise UserError(f"--equivalent-to {alpha} does not hold for this model: {reason}")


def noise_image(size: tuple[int, int, int], device: torch.device) -> Tensor:
    """(1, C, H, W) of fixed normal numbers, drawn beside the generators in use."""
    generator = torch.Generator().manual_seed(_SEED)
    return torch.randn(1, *size, generator=generator).to(device)


def group_parameters(config: Config) -> Callable[[nn.Module], Groups]:
    """What makes the optimizer's groups of a model: timm's, each split into head and body.

    timm's schedules multiply a group's rate, warm-up and lower bound included, by `lr_scale`.
    """
    assert config.equivalent_to is not None
    of_head, of_body = factors(config.opt, config.equivalent_to)

    def make_groups(model: nn.Module) -> Groups:
        head = {id(parameter) for parameter in find_classifier(model).parameters()}
        excluded: set[str] = getattr(model, "no_weight_decay", set)()
        groups = []
        for group in param_groups_weight_decay(
            model, config.weight_decay, no_weight_decay_list=excluded
        ):
            for is_head, by in ((True, of_head), (False, of_body)):
                parameters = [p for p in group["params"] if (id(p) in head) == is_head]
                if parameters:
                    groups.append(_scaled(config, group | {"params": parameters}, by))
        return groups

    return make_groups


def _scaled(config: Config, group: dict[str, Any], by: Factors) -> dict[str, Any]:
    scaled = group | {"lr_scale": by.lr, "weight_decay": group["weight_decay"] * by.weight_decay}
    if config.opt not in _SGD:
        eps = _ADAMW_EPS if config.opt_eps is None else config.opt_eps
        scaled["eps"] = eps * by.eps
    return scaled
