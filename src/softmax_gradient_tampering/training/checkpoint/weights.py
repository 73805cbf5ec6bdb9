"""Load the weights of checkpoints into models."""

from typing import Any

from torch import Tensor, nn

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.loss.inference import folding
from softmax_gradient_tampering.training.checkpoint.content import OUR_KEY
from softmax_gradient_tampering.training.config.fields import Config


def load_best_weights(model: nn.Module, checkpoint: dict[str, Any], config: Config) -> None:
    """Load a checkpoint's weights, the averaged ones where it has them.

    Raises:
        UserError: they belong to another model.
    """
    load_weights(model, checkpoint.get("state_dict_ema") or checkpoint["state_dict"], config)
    mark_folded(model, checkpoint)


def mark_folded(model: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Carry the mark of a folded alpha over, so that it is not folded in again."""
    folded_alpha = checkpoint.get(OUR_KEY, {}).get("folded_alpha")
    if folded_alpha is not None:
        folding.mark(model, folded_alpha)


def load_weights(model: nn.Module, weights: dict[str, Tensor], config: Config) -> None:
    """Load weights; if they do not fit, the error names the first difference.

    Raises:
        UserError: they belong to another model.
    """
    weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    own = model.state_dict()
    missing, unknown = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    shapes = [
        f"{name} is {tuple(weights[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    problems = [f"it lacks {name}" for name in missing]
    problems += [f"it has {name}" for name in unknown] + shapes
    if problems:
        more = f" and {len(problems) - 1} more differences" if len(problems) > 1 else ""
        raise UserError(
            f"the checkpoint does not fit {config.model} with {config.num_classes} classes: "
            f"{problems[0]}{more}; give its --model and --num-classes"
        )
    model.load_state_dict(weights)
