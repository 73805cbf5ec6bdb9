"""Load the weights of checkpoints into models."""

import re
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from softmax_gradient_tampering.errors import UserError, as_printable
from softmax_gradient_tampering.loss.inference import folding
from softmax_gradient_tampering.training.checkpoint.content import OUR_KEY
from softmax_gradient_tampering.training.config.fields import Config

# What DistributedDataParallel, torch.compile and Lightning put before the names, in any order.
_WRAPPERS = re.compile(r"(?:(?:module|_orig_mod|model)\.)+")


def load_best_weights(
    model: nn.Module, checkpoint: dict[str, Any], config: Config, may_start_head: bool = False
) -> str | None:
    """Load a checkpoint's weights, the averaged ones where it has them.

    Args:
        model: gets them.
        checkpoint: of this program's, a published one or another program's.
        config: resolved.
        may_start_head: whether the classifier keeps its own weights where the checkpoint has
            none, or one of another number of classes.

    Returns:
        A line on the classifier that starts anew, or None.

    Raises:
        UserError: they belong to another model.
    """
    weights = checkpoint.get("state_dict_ema") or checkpoint["state_dict"]
    own, line = model.state_dict(), None
    weights = _unwrapped(weights, own)
    if may_start_head:
        head = _head_of_other_size(model, weights)
        if head:
            what = (
                f"has another number of classes than {config.num_classes}"
                if head[0] in weights
                else "is missing"
            )
            line = (
                f"the checkpoint's classifier ({head[0]} and so on) {what}: it starts anew, all "
                "else from the checkpoint"
            )
            weights |= {name: own[name] for name in head}
    load_weights(model, weights, config, str(checkpoint.get("arch") or ""))
    mark_folded(model, checkpoint)
    return line


def mark_folded(model: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Carry the mark of a folded alpha over, so that it is not folded in again."""
    folded_alpha = checkpoint.get(OUR_KEY, {}).get("folded_alpha")
    if folded_alpha is not None:
        folding.mark(model, folded_alpha)


def load_weights(
    model: nn.Module, weights: dict[str, Tensor], config: Config, arch: str = ""
) -> None:
    """Load weights; if they do not fit, the error names what they are and the first difference.

    Args:
        model: gets them.
        weights: by name, with or without what wrappers put before the names.
        config: resolved.
        arch: the model that they are said to be of; empty if that is not known.

    Raises:
        UserError: they belong to another model.
    """
    own = model.state_dict()
    weights = _unwrapped(weights, own)
    counts = filter(_is_count, own)  # nothing here depends on them
    described = _describe(weights, arch)
    weights = {**{name: own[name] for name in counts}, **weights}
    problems = [f"it lacks {name}" for name in sorted(set(own) - set(weights))]
    problems += [f"it has {as_printable(name)}" for name in sorted(set(weights) - set(own))]
    problems += [
        f"{name} is {tuple(weights[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 1} more differences" if len(problems) > 1 else ""
        fix = _fix(config, arch) + _fine_tuning(model, weights, config)
        raise UserError(
            f"the checkpoint does not fit {config.model} with {config.num_classes} classes: it "
            f"holds {described}; {problems[0]}{more}; {fix}"
        )
    model.load_state_dict(weights)


def _unwrapped(weights: dict[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """The weights by the model's own names, as far as wrappers alone stand before these."""
    first = next(iter(own), "")
    for name in weights:
        before = name.removesuffix(first)
        if name.endswith(first) and (not before or _WRAPPERS.fullmatch(before)):
            # What stands under other names, such as a loss's weights, is not of the model.
            of_model = (key for key in weights if key.startswith(before))
            return {key.removeprefix(before): weights[key] for key in of_model}
    return dict(weights)


def _head_of_other_size(model: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """The classifier's weights by name, if these alone are missing or of other classes."""
    get_classifier: Any = getattr(model, "get_classifier", None)
    head = get_classifier() if callable(get_classifier) else None
    if not isinstance(head, nn.Module):
        return []
    of_head = {id(tensor) for tensor in head.parameters()}
    names = [name for name, tensor in model.named_parameters() if id(tensor) in of_head]
    own = model.state_dict()
    differ = [n for n, tensor in weights.items() if n in own and own[n].shape != tensor.shape]
    is_of_classes = all(own[name].shape[1:] == weights[name].shape[1:] for name in differ)
    missing = {name for name in own if name not in weights and not _is_count(name)}
    is_head_alone = set(differ) <= set(names) and is_of_classes and missing in (set(), set(names))
    return names if is_head_alone and (differ or missing) else []


def _is_count(name: str) -> bool:
    """Whether it is a count of batch norm's, which files older than torch 0.4.1 lack."""
    return name.endswith("num_batches_tracked")


def _describe(weights: dict[str, Tensor], arch: str) -> str:
    last = next((t for t in reversed(weights.values()) if t.ndim in (2, 4)), None)
    first = as_printable(f"{next(iter(weights), 'none')!s:.60}")
    what = as_printable(f"{arch:.60}") if arch else "a model that it does not name"
    outputs = "" if last is None else f" with {len(last):,} outputs of its last layer"
    return f"{what}{outputs} ({len(weights)} tensors, the first {first})"


def _fine_tuning(model: nn.Module, weights: dict[str, Tensor], config: Config) -> str:
    """Where classes alone differ, and a run was to go on: what starts from the weights instead."""
    if not config.resume or config.validate or not _head_of_other_size(model, weights):
        return ""
    return ", or fine-tune for other classes by --initial-checkpoint in the place of --resume"


def _fix(config: Config, arch: str) -> str:
    if arch and arch != config.model:
        return f"give --model {as_printable(f'{arch:.60}')}"
    return "give its --model and --num-classes" if not arch else "give its --num-classes"
