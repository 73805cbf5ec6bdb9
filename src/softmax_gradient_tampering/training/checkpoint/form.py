"""The form of a checkpoint: what its values must be before anything is made of them."""

import argparse
from typing import Any

from torch import Tensor

from softmax_gradient_tampering.files.untrusted import (
    ALPHA,
    COUNT,
    LARGEST,
    MAPPING,
    NAME,
    NUMBER,
    TEXT,
    Form,
    Kind,
    describe,
    find_fault,
    is_number,
    is_scalar,
    list_of,
    optional,
)
from softmax_gradient_tampering.training.records.run_files import COLUMNS


def find_checkpoint_fault(
    checkpoint: dict[str, Any], our_key: str, newest_format: int
) -> str | None:
    """The first value of a checkpoint that is not what it must be, in words; None if all are."""
    fault = find_fault(checkpoint, _PUBLISHED, needs_all=False)
    if fault or our_key not in checkpoint:
        return fault
    ours = checkpoint[our_key]
    fault = find_fault(ours, {"format": COUNT}, f"{our_key}.")
    if fault:
        return fault
    if ours["format"] > newest_format:
        return f"its format {ours['format']} is of a newer version than this one"
    fault = find_fault(ours, _OURS, f"{our_key}.")
    fault = fault or find_fault(ours, _OPTIONAL, f"{our_key}.", needs_all=False)
    fault = fault or find_fault(ours["position"], _POSITION, "position.")
    fault = fault or find_fault(ours["position"], _SAMPLES, "position.", needs_all=False)
    known = {*_POSITION, *_SAMPLES}
    if not fault and (unknown := sorted(set(ours["position"]) - known, key=str)):
        return f"position.{describe(unknown[0])} is unknown"
    fault = fault or find_fault(ours["times"], _TIMES, "times.")
    fault = fault or find_fault(_as_mapping(checkpoint.get("args")), _ARGS, "args.")
    if not fault and len(ours["times"]["images_per_s"]) != len(ours["rows"]):
        return "times.images_per_s has another length than rows"
    return fault


def _as_mapping(settings: Any) -> Any:
    """The settings of a checkpoint; in published ones they are a Namespace."""
    return vars(settings) if isinstance(settings, argparse.Namespace) else settings


def _is_weights(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
    )


def _is_optimizer(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("state"), dict)
        and all(isinstance(state, dict) for state in value["state"].values())
        and isinstance(value.get("param_groups"), list)
        and all(
            isinstance(group, dict) and isinstance(group.get("params"), list)
            for group in value["param_groups"]
        )
    )


def _is_settings(value: Any) -> bool:
    values = _as_mapping(value)
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        return False
    alphas = [values.get(name) or 0 for name in ("modify_softmax", "alpha_end")]
    return all(map(_is_setting, values.values())) and all(map(ALPHA.is_right, alphas))


def _is_setting(value: Any) -> bool:
    """Scalars and flat lists. Mappings are timm's, which are compared with nothing."""
    if isinstance(value, list | tuple):
        return all(map(is_scalar, value))
    return is_scalar(value) or isinstance(value, dict)


def _is_row(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and COUNT.is_right(value.get("epoch"))
        and all(n in COLUMNS and (v is None or is_number(v)) for n, v in value.items())
    )


def _is_tally(value: Any) -> bool:
    """A sum of losses, and two counts as numbers of any type."""
    if not list_of(NUMBER, 3).is_right(value):
        return False
    return all(0 <= count <= LARGEST for count in value[1:])  # nan is not


_WEIGHTS = Kind("tensors by name", _is_weights)
_TALLY = Kind("a sum of losses and two counts", _is_tally)
_PUBLISHED: Form = {
    "epoch": COUNT,
    "arch": optional(TEXT),
    "state_dict": _WEIGHTS,
    "state_dict_ema": optional(_WEIGHTS),
    "optimizer": Kind("an optimizer's state and its groups", _is_optimizer),
    "args": Kind("plain settings by name, each alpha from 0", _is_settings),
    "amp_scaler": MAPPING,
    "version": COUNT,
    "metric": optional(NUMBER),
}
_OURS: Form = {
    "position": MAPPING,
    "rows": list_of(Kind("", _is_row), description="rows of summary.csv, each of a whole epoch"),
    "best": list_of(list_of(NUMBER, 2), description="a list of pairs of epoch and metric"),
    "tallies": list_of(_TALLY),
    "schedule": MAPPING,
    "num_processes": COUNT,
    "folded_alpha": optional(NUMBER),
    "times": MAPPING,
}
_OPTIONAL: Form = {
    "device": NAME,
    "loss_kernel": NAME,
    "num_samples": COUNT,
    "class_weights": optional(list_of(NUMBER)),
}
_POSITION: Form = dict.fromkeys(("epoch", "batch", "step", "skipped_steps"), COUNT)
_SAMPLES: Form = dict.fromkeys(("taken", "samples"), COUNT)  # the first checkpoints had none
_TIMES: Form = {
    "seconds": NUMBER,
    "resumes": COUNT,
    "images_per_s": list_of(optional(NUMBER)),
}
_ARGS: Form = {"batch_size": COUNT}
