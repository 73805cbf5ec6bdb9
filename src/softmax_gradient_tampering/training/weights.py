"""Weights out of checkpoints and into models."""

from pathlib import Path

from torch import Tensor, nn

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.checkpoint import load_checkpoint
from softmax_gradient_tampering.training.config import Config


def load_checkpoint_weights(path: str) -> dict[str, Tensor]:
    """The weights in a checkpoint: the averaged ones where it holds them."""
    checkpoint = load_checkpoint(Path(path))
    weights: dict[str, Tensor] = checkpoint.get("state_dict_ema") or checkpoint["state_dict"]
    return weights


def load_weights(model: nn.Module, weights: dict[str, Tensor], config: Config) -> None:
    """Load weights, saying in one line where they do not fit.

    Raises:
        UserError: they are another model's.
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
