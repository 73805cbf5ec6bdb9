"""What --class-weights names: balanced, or a weight for every class, by name or in order."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.errors import UserError, first_line
from softmax_gradient_tampering.files.text import MAX_SETTINGS, read_text
from softmax_gradient_tampering.files.untrusted import is_number
from softmax_gradient_tampering.terminal.parser import nearest

BALANCED = "balanced"
_FORM = "a line for every class: NAME,WEIGHT, or WEIGHT alone in the order of the labels"
Weights = Mapping[str, float] | Sequence[float]


def inline_class_weights(value: str) -> str:
    """A value of --class-weights as a run records it: the weights of a file as JSON.

    So a run's args.yaml and a study's plan hold the weights themselves, whatever becomes of the
    file. What is recorded already stays as it is, and no file is read.

    Raises:
        UserError: the file cannot be read, or holds no weights.
    """
    if value in ("", BALANCED):
        return value
    weights = parse_class_weights(value) if is_recorded(value) else _read_file(value)
    return json.dumps(weights)


def is_recorded(value: object) -> bool:
    """Whether a value is one that a run records, and names no file."""
    return isinstance(value, str) and (value in ("", BALANCED) or value[0] in "{[")


def parse_class_weights(value: str) -> Weights:
    """The weights of a recorded value, by the classes' names or in their order.

    >>> parse_class_weights('{"cat": 1, "frog": 2.5}')
    {'cat': 1, 'frog': 2.5}

    Raises:
        UserError: it is not what `inline_class_weights` gives.
    """
    try:
        weights: Any = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise _refusal(value, f"no JSON ({first_line(error)})") from error
    values = list(weights.values()) if isinstance(weights, dict) else weights
    if not isinstance(values, list) or not values:
        raise _refusal(value, "no weights")
    for weight in values:
        if not is_number(weight) or not 0 <= weight < math.inf:
            raise _refusal(value, f"the weight {weight!r:.40} must be a finite number from 0")
    if not any(values):
        raise _refusal(value, "all weights are 0")
    found: Weights = weights
    return found


def order_class_weights(weights: Weights, names: Sequence[str], num_classes: int) -> list[float]:
    """The weights in the order of the labels.

    Args:
        weights: by name, or in that order.
        names: of the data set's classes.
        num_classes: of the model; classes beyond the names have their numbers as names.

    Raises:
        UserError: a class has no weight, or a weight no class.
    """
    if not isinstance(weights, Mapping):
        if len(weights) != num_classes:
            raise UserError(
                f"--class-weights: {len(weights)} weights for {num_classes} classes; give one for "
                "each"
            )
        return [float(weight) for weight in weights]
    known = [names[n] if n < len(names) else str(n) for n in range(num_classes)]
    unknown = next((name for name in weights if name not in known), None)
    if unknown is not None:
        raise UserError(
            f"--class-weights: there is no class {unknown!r:.60}{nearest(unknown, known)}"
        )
    missing = next((name for name in known if name not in weights), None)
    if missing is not None:
        raise UserError(f"--class-weights: no weight for class {missing!r:.60}; give one for each")
    return [float(weights[name]) for name in known]


def _read_file(value: str) -> Weights:
    try:
        text = read_text(Path(value).expanduser(), MAX_SETTINGS)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(
            f"--class-weights {value}: cannot be read ({reason}); give balanced, or a file with "
            f"{_FORM}"
        ) from error
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text)) if row]
    except csv.Error as error:
        raise UserError(f"--class-weights {value}: {first_line(error)}; give {_FORM}") from error
    rows = [row for row in rows if any(row)]
    if rows and rows[0][-1].lower() == "weight":  # a heading
        del rows[0]
    if not rows or {len(row) for row in rows} not in ({1}, {2}):
        raise UserError(f"--class-weights {value}: must hold {_FORM}")
    numbers = [_number(row[-1], value) for row in rows]
    weights: Weights = numbers
    if len(rows[0]) == 2:
        names = [row[0] for row in rows]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"--class-weights {value}: class {twice!r:.60} stands there twice")
        weights = dict(zip(names, numbers, strict=True))
    if not any(numbers):
        raise UserError(f"--class-weights {value}: all weights are 0; one must be above")
    return weights


def _number(text: str, value: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise UserError(
            f"--class-weights {value}: the weight {text!r:.40} must be a finite number from 0"
        )
    return number


def _refusal(value: str, why: str) -> UserError:
    return UserError(f"--class-weights {value!r:.60}: {why}; give balanced, or a file with {_FORM}")
