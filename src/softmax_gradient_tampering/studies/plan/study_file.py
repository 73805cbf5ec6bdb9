"""study.yaml: the options of `sgt study run` in a file."""

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.files.yaml_files import read_settings
from softmax_gradient_tampering.terminal.parser import nearest
from softmax_gradient_tampering.training.config.arguments import FIELDS, check_once

# Besides the flags: the training flags, as a mapping.
TRAIN_KEY = "train"


def read_study_file(
    path: Path, parser: argparse.ArgumentParser
) -> tuple[dict[str, Any], list[str]]:
    """The values of a study.yaml, as the parser would have given them, and the training flags.

    Raises:
        UserError: it cannot be read, or holds what is no option of a study.
    """
    loaded = read_settings(path)
    training = loaded.pop(TRAIN_KEY, None) or {}
    known = {action.dest: action for action in parser._actions} | {TRAIN_KEY: None}
    words = []
    check_once(loaded, str(path))
    for key, value in loaded.items():
        name = str(key).replace("-", "_")
        if name not in known or name in ("config", "help"):
            if name in FIELDS:
                raise UserError(f"{path}: {key} is a training flag; give it under {TRAIN_KEY}")
            raise UserError(f"{path}: unknown key {key!r}{nearest(name, known)}")
        if name in ("until_settled", "keep_checkpoints"):
            if not isinstance(value, bool):
                raise UserError(f"{path}: {key}: expected true or false, got {value!r:.60}")
            words += [f"--{name.replace('_', '-')}"] * value
            continue
        if name == "arms":
            words += _arm_words(value, f"{path}: {key}")
            continue
        words += [f"--{name.replace('_', '-')}", *_texts(name, value, f"{path}: {key}")]
    try:
        values = vars(parser.parse_args(words))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return values, _training_words(training, path)


def _arm_words(value: Any, where: str) -> list[str]:
    """The arms of study.yaml as words of a command line."""
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: expected `name: {{flag: value}}` lines, got {value!r:.60}")
    words = []
    for name, flags in value.items():
        if not isinstance(flags or {}, Mapping):
            raise UserError(f"{where}: {name}: expected `flag: value` lines, got {flags!r:.60}")
        lines = (f"{flag}={_text(each, f'{where}: {name}: {flag}')}"
                 for flag, each in (flags or {}).items())  # fmt: skip
        words += ["--arm", f"{name}: {shlex.join(lines)}"]
    return words


def _text(value: Any, where: str) -> str:
    """A value of an arm as it stands on a command line."""
    if value is None or isinstance(value, Mapping):
        raise UserError(f"{where}: expected a value, got {value!r:.60}")
    texts = (str(each).lower() if isinstance(each, bool) else str(each) for each in _list(value))
    return ",".join(texts)


def _texts(name: str, value: Any, where: str) -> list[str]:
    """A value of study.yaml as words of a command line."""
    if name == "grid":
        if not isinstance(value, Mapping):
            raise UserError(f"{where}: expected `flag: [value, value]` lines, got {value!r:.60}")
        lines = value.items()
        return [f"{flag}={','.join(map(str, _list(values)))}" for flag, values in lines]
    if name in ("seeds", "tuning_seeds") and isinstance(value, list):
        return [",".join(map(str, value)) + ","]
    if value is None or isinstance(value, Mapping | bool):
        raise UserError(f"{where}: expected a value, got {value!r:.60}")
    return [str(item) for item in _list(value)]


def _training_words(training: Any, path: Path) -> list[str]:
    """The training flags of a study.yaml as words of a command line."""
    if not isinstance(training, Mapping):
        raise UserError(f"{path}: {TRAIN_KEY}: expected `flag: value` lines, got {training!r:.60}")
    check_once(training, f"{path}: {TRAIN_KEY}")
    words = []
    for key, value in training.items():
        flag = str(key).replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, Mapping):
            raise UserError(f"{path}: {TRAIN_KEY}: {key}: expected a value, got {value!r:.60}")
        elif value is not None:
            words += [f"--{flag}", *map(str, _list(value))]
    return words


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
