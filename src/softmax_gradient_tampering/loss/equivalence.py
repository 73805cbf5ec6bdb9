"""The ordinary training that follows a tampered one: its initial head and its parameter groups.

With z the logits of the tampered training at (lr, wd, eps), and `head` the linear layer that gives
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

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

from torch import nn

from softmax_gradient_tampering.loss.inference.head import HeadArgument, Layer
from softmax_gradient_tampering.loss.inference.scaled_logits import check_not_folded, check_scale
from softmax_gradient_tampering.loss.inference.scaling import locate_heads, scale_heads

Groups = list[dict[str, Any]]

ADAMW_EPS = 1e-8  # torch's default
_INSTEAD = "train with tampered_cross_entropy at this alpha instead"


class Factors(NamedTuple):
    """By what a part of the net is re-set; the learning rate's works on a whole schedule."""

    lr: float
    weight_decay: float
    eps: float = 1.0


def factors(optimizer: str, alpha: float) -> tuple[Factors, Factors]:
    """The factors of (head, body) for "sgd" or "adamw".

    Raises:
        ValueError: no identity is known for the optimizer.
    """
    of_head = Factors(alpha, 1 / alpha)
    if optimizer == "sgd":
        return of_head, Factors(1 / alpha, alpha)
    if optimizer == "adamw":
        return of_head, Factors(1.0, 1.0, eps=alpha)
    raise ValueError(
        f'optimizer must be "sgd" or "adamw", got {optimizer!r:.60}: an equivalent ordinary '
        'training is known for these two (Adam without weight decay is "adamw" with '
        f"weight_decay 0); with another one, {_INSTEAD}"
    )


def equivalent_parameter_groups(
    model: nn.Module,
    alpha: float,
    lr: float,
    weight_decay: float,
    optimizer: str,
    head: HeadArgument | None = None,
    *,
    groups: Iterable[Mapping[str, Any]] | None = None,
    example_input: Any = None,
) -> Groups:
    """Groups for torch's optimizer with which ordinary cross-entropy follows SGT(alpha).

    It multiplies the initial weights of the head by alpha, in place and once, and returns

        SGD      head {lr * alpha, wd / alpha}         the rest {lr / alpha, wd * alpha}
        AdamW    head {lr * alpha, wd / alpha, eps}    the rest {lr, wd, eps * alpha}

    Trained with `F.cross_entropy`, the model then takes the steps that the unchanged model takes
    with `tampered_cross_entropy` at (alpha, lr, weight_decay): its logits are alpha times that
    model's after every step, bit by bit where alpha is a power of two and both losses are computed
    by the same code, else up to rounding. It is the control that a claimed gain needs.

    What no look at the model shows, and keeps the identity: momentum, Nesterov, betas, label
    smoothing, class weights, soft targets, accumulation, and a schedule that multiplies the rates
    of all groups by one factor. What breaks it: clipping the norm of all gradients, float16 with
    a loss scale (other steps are skipped), a schedule with absolute rates (a warm-up from a rate,
    a minimum) or one that watches the value of the loss, and a second loss on the body.

    Args:
        model: before its training, before it is sharded or wrapped. It and its head get an
            attribute `equivalent_alpha`, by which a second call is refused, and `fold_alpha`
            too: the logits are alpha z already.
        alpha: the exponent of the tampered training, > 0.
        lr: its learning rate, >= 0.
        weight_decay: its weight decay, >= 0: SGD's coupled one, AdamW's decoupled one.
        optimizer: "sgd" or "adamw".
        head: as for `fold_alpha`: the layers, or their names, that give the logits of the tampered
            loss; needed where these are not certain.
        groups: the groups of the tampered training, where these are not all parameters at one
            rate and decay: `torch.optim` groups of parameters of the model, whose own `lr`,
            `weight_decay` and `eps` (1e-8 where AdamW has none) come before the arguments.
        example_input: as for `fold_alpha`: what the model is called with, before and after, to see
            that its logits become alpha z. Only this shows what it does with them after the head.

    Returns:
        Dictionaries of `params`, `lr`, `weight_decay` and, for AdamW, `eps`, as torch's
        optimizers take them; any other entry of `groups` is kept.

    Raises:
        ValueError: a number or the optimizer is none that the identity knows; the head is not
            certain, or shared, or made anew at every call; the model has been scaled already.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> groups = equivalent_parameter_groups(model, 0.5, 0.1, 0.01, optimizer="sgd")
    >>> [(len(group["params"]), group["lr"], group["weight_decay"]) for group in groups]
    [(2, 0.05, 0.02), (2, 0.2, 0.005)]
    >>> optimizer = torch.optim.SGD(groups, momentum=0.9)

    Source: follows from arXiv 2111.12495, as p' - q is the gradient of
    cross_entropy(alpha z) / alpha.
    """
    factor = check_scale(
        alpha, "alpha = 0 has no equivalent: the head would be 0 and learn nothing"
    )
    by = factors(optimizer, factor)
    settings = {
        "lr": _check_setting("lr", lr),
        "weight_decay": _check_setting("weight_decay", weight_decay),
    }
    if optimizer == "adamw":
        settings["eps"] = ADAMW_EPS
    given = [{"params": list(model.parameters())}] if groups is None else groups
    checked = [settings | _check_group(group, model, optimizer) for group in given]
    heads = scale_initial_head(model, factor, head, example_input)
    return split_groups(checked, heads, *(factor_of._asdict() for factor_of in by))


def scale_initial_head(
    model: nn.Module, alpha: float, head: HeadArgument | None = None, example_input: Any = None
) -> tuple[Layer, ...]:
    """Multiply the initial weights of the head by alpha, in place, and mark it and the model.

    Raises:
        ValueError: the head is not certain or cannot be scaled, or the logits are not alpha z then.
    """
    check_not_folded(model)
    heads = locate_heads(model, head, example_input)
    tensors = [tensor for layer in heads for tensor in layer.parameters(recurse=False)]
    if not any(tensor.is_meta or tensor.any() for tensor in tensors):
        example_input = None  # a head that starts at 0: its logits show nothing
    scale_heads(model, heads, alpha, example_input, _INSTEAD)
    for module in (model, *heads):
        module.equivalent_alpha = alpha  # type: ignore[assignment]
    return heads


def split_groups(
    groups: Iterable[Mapping[str, Any]],
    heads: Sequence[nn.Module],
    of_head: Mapping[str, float],
    of_body: Mapping[str, float],
) -> Groups:
    """Every group in two, head and body, with its entries multiplied by the factors of their names.

    A group that has no parameter of the one is only the other.
    """
    in_head = {id(parameter) for layer in heads for parameter in layer.parameters()}
    split: Groups = []
    for group in groups:
        for is_head, by in ((True, of_head), (False, of_body)):
            parameters = [p for p in group["params"] if (id(p) in in_head) == is_head]
            scaled = {name: group[name] * by[name] for name in by if name in group}
            if parameters:
                split.append({**group, **scaled, "params": parameters})
    return split


def _check_setting(name: str, value: Any) -> float:
    if isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < math.inf:
        return float(value)
    raise ValueError(
        f"{name} must be a finite number >= 0, that of the tampered training, got {value!r:.60}"
    )


def _check_group(group: Mapping[str, Any], model: nn.Module, optimizer: str) -> dict[str, Any]:
    """A group of the tampered training, its parameters as a list and without names of theirs."""
    parameters = group["params"]
    parameters = [parameters] if isinstance(parameters, nn.Parameter) else list(parameters)
    own = {id(parameter) for parameter in model.parameters()}
    if not {id(parameter) for parameter in parameters} <= own:
        raise ValueError(
            f"a group holds a parameter that is none of {type(model).__name__}'s: pass groups of "
            "model.parameters(), not of a copy and not of (name, parameter) pairs"
        )
    if "initial_lr" in group:
        raise ValueError(
            "a learning rate schedule is attached to these groups, whose initial_lr would stay: "
            "make the schedule after the equivalent groups"
        )
    for name in ("lr", "weight_decay", "eps"):
        if name in group:
            _check_setting(name, group[name])
    if optimizer == "adamw" and not group.get("decoupled_weight_decay", True):
        raise ValueError(
            "a group is that of Adam, whose weight decay is coupled: the identity is known for "
            f"AdamW; {_INSTEAD}"
        )
    kept = {name: value for name, value in group.items() if name != "param_names"}
    return {**kept, "params": parameters}
