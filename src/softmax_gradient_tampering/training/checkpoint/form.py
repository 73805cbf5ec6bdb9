"""The form of a checkpoint: the types that its values must have before anything is made of them."""

import argparse
from collections.abc import Callable
from typing import Any

from torch import Tensor

from softmax_gradient_tampering.training.records.run_files import COLUMNS

_Is = Callable[[Any], bool]
_LARGEST = 2**53  # what a float64 counts to: above any run's numbers, below what int64 holds
_LONGEST = 1000  # bits of a number among the settings, so that it can be printed


def find_fault(checkpoint: dict[str, Any], our_key: str, newest_format: int) -> str | None:
    """The first value of a checkpoint that is not what it must be, in words; None if all are."""
    fault = _find(checkpoint, _PUBLISHED, "")
    if fault or our_key not in checkpoint:
        return fault
    ours = checkpoint[our_key]
    if not isinstance(ours, dict) or not _is_count(ours.get("format")):
        return f"{our_key} has no format number"
    if ours["format"] > newest_format:
        return f"its format {ours['format']} is of a newer version than this one"
    fault = _find(ours, _OURS, f"{our_key}.", is_complete=True)
    fault = fault or _find(ours, _OPTIONAL, f"{our_key}.")
    fault = fault or _find(ours["position"], _POSITION, "position.", is_complete=True)
    if not fault and (unknown := sorted(set(ours["position"]) - set(_POSITION), key=str)):
        return f"position.{unknown[0]!r:.60} is unknown"
    fault = fault or _find(ours["times"], _TIMES, "times.", is_complete=True)
    fault = fault or _find(checkpoint.get("args"), {"batch_size": _is_count}, "args.", True)
    if not fault and len(ours["times"]["images_per_s"]) != len(ours["rows"]):
        return "times.images_per_s has another length than rows"
    return fault


def _find(values: Any, form: dict[str, _Is], where: str, is_complete: bool = False) -> str | None:
    if isinstance(values, argparse.Namespace):
        values = vars(values)
    if not isinstance(values, dict):
        return f"{where.rstrip('.') or 'it'} is {type(values).__name__}"
    for name, is_right in form.items():
        if name in values and not is_right(values[name]):
            return f"{where}{name} is {type(values[name]).__name__} or holds what it should not"
        if is_complete and name not in values:
            return f"{where}{name} is missing"
    return None


def _is_number(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= _LARGEST
    return isinstance(value, float)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value) and value >= 0


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
    values = vars(value) if isinstance(value, argparse.Namespace) else value
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        return False
    alphas = [values.get(name) or 0 for name in ("modify_softmax", "alpha_end")]
    return all(map(_is_setting, values.values())) and all(
        _is_number(alpha) and 0 <= alpha < float("inf") for alpha in alphas
    )


def _is_setting(value: Any) -> bool:
    """A scalar or a flat list. timm's have mappings too: they are compared with nothing."""
    if isinstance(value, list | tuple):
        return all(map(_is_scalar, value))
    return _is_scalar(value) or isinstance(value, dict)


def _is_scalar(value: Any) -> bool:
    if isinstance(value, int):
        return value.bit_length() <= _LONGEST
    return value is None or isinstance(value, float | str)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, dict)
        and _is_count(row.get("epoch"))
        and all(n in COLUMNS and (v is None or _is_number(v)) for n, v in row.items())
        for row in value
    )


def _list_of(is_right: _Is, size: int | None = None) -> _Is:
    return lambda value: (
        isinstance(value, list | tuple) and size in (None, len(value)) and all(map(is_right, value))
    )


def _is_tally(value: Any) -> bool:
    """A sum of losses, and two counts as numbers of any type."""
    if not _list_of(_is_number, 3)(value):
        return False
    return all(0 <= count <= _LARGEST for count in value[1:])  # nan is not


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


_PUBLISHED: dict[str, _Is] = {
    "epoch": _is_count,
    "arch": lambda value: value is None or isinstance(value, str),
    "state_dict": _is_weights,
    "state_dict_ema": lambda value: value is None or _is_weights(value),
    "optimizer": _is_optimizer,
    "args": _is_settings,
    "amp_scaler": _is_mapping,
    "version": _is_count,
    "metric": lambda value: value is None or _is_number(value),
}
_OURS: dict[str, _Is] = {
    "position": _is_mapping,
    "rows": _is_rows,
    "best": _list_of(_list_of(_is_number, 2)),
    "tallies": _list_of(_is_tally),
    "schedule": _is_mapping,
    "num_processes": _is_count,
    "folded_alpha": lambda value: value is None or _is_number(value),
    "times": _is_mapping,
}
_OPTIONAL: dict[str, _Is] = {
    **dict.fromkeys(
        ("device", "loss_kernel"),
        lambda value: isinstance(value, str) and value.isprintable() and len(value) < 100,
    ),
    "num_samples": _is_count,
}
_POSITION: dict[str, _Is] = dict.fromkeys(("epoch", "batch", "step", "skipped_steps"), _is_count)
_TIMES: dict[str, _Is] = {
    "seconds": _is_number,
    "resumes": _is_count,
    "images_per_s": _list_of(lambda value: value is None or _is_number(value)),
}
