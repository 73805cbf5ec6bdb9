"""What is in a checkpoint, in words: this program's, a published one, or timm's."""

import reprlib
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from softmax_gradient_tampering.errors import as_user_error
from softmax_gradient_tampering.training.checkpoint.content import (
    OUR_KEY,
    completed_epochs,
    load_checkpoint,
    saved_args,
)


def describe_checkpoint(path: Path) -> tuple[dict[str, str], str]:
    """What a checkpoint holds, and the settings of its run.

    Args:
        path: of the file; nothing in it is executed.

    Returns:
        Facts by name, in the order of reading; the settings as YAML.

    Raises:
        UserError: it cannot be read, or is of no known form.
    """
    checkpoint = load_checkpoint(path)
    with as_user_error(f"{path}: not a checkpoint of a known form"):
        settings = saved_args(checkpoint)
        # repr() of what is no plain type, and not of all of it, so that nothing in the file can
        # stop the printing.
        dump = yaml.safe_dump({str(name): _plain(value) for name, value in settings.items()})
        return _facts(checkpoint, settings), dump


def _facts(checkpoint: dict[str, Any], settings: dict[str, Any]) -> dict[str, str]:
    """What is in it, in the order of printing; only what is there."""
    facts = {"written by": _writer(checkpoint)}
    if "arch" in checkpoint:
        facts["model"] = str(checkpoint["arch"])
    facts["weights"] = _weights(checkpoint["state_dict"])
    if "state_dict_ema" in checkpoint:
        facts["averaged weights"] = _weights(checkpoint["state_dict_ema"])
    if "epoch" in checkpoint:
        facts["completed epochs"] = str(completed_epochs(checkpoint))
    ours = checkpoint.get(OUR_KEY, {})
    if ours:
        position = ours["position"]
        facts["position"] = (
            f"{position['step']} optimizer steps, {position['batch']} batches into the next epoch"
        )
        facts["processes"] = str(ours["num_processes"])
        facts["recorded epochs"] = str(len(ours["rows"]))
        if ours["folded_alpha"] is not None:
            facts["folded alpha"] = f"{ours['folded_alpha']} (in the classifier)"
    if "metric" in checkpoint:
        facts["metric"] = str(checkpoint["metric"])
    alpha = settings.get("modify_softmax")
    if alpha is not None:
        facts["alpha"] = str(alpha) if alpha else "off (ordinary cross-entropy)"
    if "optimizer" in checkpoint:
        facts["optimizer"] = _optimizer(checkpoint["optimizer"], settings)
    if "amp_scaler" in checkpoint:
        facts["loss scale"] = f"{checkpoint['amp_scaler'].get('scale', 'none')}"
    if settings:
        facts["settings"] = f"{len(settings)}; --args prints them"
    return facts


def _writer(checkpoint: dict[str, Any]) -> str:
    ours = checkpoint.get(OUR_KEY)
    if ours is not None:
        return f"this program, format {ours['format']}"
    if hasattr(checkpoint.get("args"), "modify_softmax"):
        return f"the published program, version {checkpoint.get('version')}"
    if "version" in checkpoint:
        return f"timm, version {checkpoint['version']}"
    return "unknown: weights alone" if set(checkpoint) == {"state_dict"} else "unknown"


def _weights(weights: dict[str, Any]) -> str:
    tensors = [value for value in weights.values() if isinstance(value, Tensor)]
    number = sum(tensor.numel() for tensor in tensors)
    types = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors})
    return f"{len(tensors)} tensors, {number:,} numbers, {', '.join(types)}"


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | None) else reprlib.repr(value)


def _optimizer(state: dict[str, Any], settings: dict[str, Any]) -> str:
    groups = [
        f"{len(group['params'])} parameters at lr {group.get('lr', 0):g}, "
        f"weight decay {group.get('weight_decay', 0):g}"
        for group in state["param_groups"]
    ]
    buffers = sorted({name for values in state["state"].values() for name in values})
    kept = f"; keeps {', '.join(buffers)}" if buffers else ""
    return f"{settings.get('opt', 'of an unnamed kind')}: {'; '.join(groups)}{kept}"
