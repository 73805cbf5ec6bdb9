"""What a checkpoint holds: the published keys, ours besides under one, plain types and tensors."""

import reprlib
from pathlib import Path
from typing import Any, NamedTuple

from softmax_gradient_tampering.errors import UserError, as_printable
from softmax_gradient_tampering.training.checkpoint.file import read_checkpoint_file
from softmax_gradient_tampering.training.checkpoint.foreign import as_timms
from softmax_gradient_tampering.training.checkpoint.form import find_checkpoint_fault

OUR_KEY = "softmax_gradient_tampering"
FORMAT = 1


class Checkpoint(NamedTuple):
    """An opened checkpoint: its file, and what it holds."""

    path: Path
    content: dict[str, Any]


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint without running code from it: ours, a published one, or another's.

    Raises:
        DamagedCheckpointError: it is damaged.
        UserError: it is missing, cannot be read, asks for code to be run, or is of no known form.
    """
    checkpoint = read_checkpoint_file(path)
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path}: not a checkpoint but {type(checkpoint).__name__}")
    try:
        checkpoint = as_timms(checkpoint)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    fault = find_checkpoint_fault(checkpoint, OUR_KEY, FORMAT)
    if fault is not None:
        raise UserError(f"{path}: not a checkpoint of a known form: {fault}")
    return checkpoint


def completed_epochs(checkpoint: dict[str, Any]) -> int:
    """The epochs that a checkpoint has behind it.

    `epoch` counts completed epochs in ours (version 1) and in the published ones, which carry
    version 2 and have `modify_softmax` among their args; in timm's it is the last one's number.
    """
    epoch = int(checkpoint.get("epoch", 0))
    is_ours = OUR_KEY in checkpoint
    is_published = hasattr(checkpoint.get("args"), "modify_softmax")
    if not is_ours and not is_published and checkpoint.get("version", 1) > 1:
        return epoch + 1
    return epoch


def saved_args(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The settings in a checkpoint: a mapping in ours, a Namespace in published ones."""
    args = checkpoint.get("args", {})
    return args if isinstance(args, dict) else vars(args)


def shown(saved: Any) -> str:
    """A value of a checkpoint for a message: cut, and without control characters."""
    text = saved if isinstance(saved, str) else reprlib.repr(saved)
    return as_printable(f"{text:.60}")


def place(checkpoint: dict[str, Any]) -> tuple[int, int]:
    """How far a checkpoint is: completed epochs, and samples of the next one."""
    return completed_epochs(checkpoint), saved_position(checkpoint).get("samples", 0)


def saved_position(checkpoint: dict[str, Any]) -> dict[str, int]:
    """The values of a `Position`, as our checkpoints hold them; empty of other programs'."""
    ours = checkpoint.get(OUR_KEY)
    if ours is None:
        return {}
    # The first ones counted batches alone, of which an epoch's last one may be smaller.
    batch_size = saved_args(checkpoint).get("batch_size", 0) * ours.get("num_processes", 1)
    samples = ours["position"]["batch"] * batch_size
    return {"samples": min(samples, ours.get("num_samples", samples)), **ours["position"]}
