"""YAML files of settings: those of a person, which may hold anything, and args.yaml."""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.errors import UserError, first_line
from softmax_gradient_tampering.files.text import MAX_SETTINGS, read_record, read_text
from softmax_gradient_tampering.files.whole import write_text

_MAX_DEPTH = 8  # of lists and mappings in a configuration
_NEXT_SETTING = re.compile(r"(?<=\n)(?=[A-Za-z_])")


def read_settings(path: Path) -> dict[Any, Any]:
    """The values of a --config file, unchecked.

    Raises:
        UserError: it cannot be read, or holds what is no mapping of plain values.
    """
    import yaml

    try:
        text = read_text(path, MAX_SETTINGS)
    except (OSError, ValueError) as error:
        raise UserError(f"--config {path}: cannot be read ({error})") from error
    try:
        _check_plain(text, path)
        _check_once(text, path)
        loaded = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a day like 99
        reason = " ".join(str(error).split())
        raise UserError(f"--config {path}: not valid YAML: {reason}") from error
    if not isinstance(loaded, dict):
        raise UserError(f"--config {path}: expected `name: value` lines, got {loaded!r:.60}")
    return loaded


def read_args(path: Path) -> dict[str, Any]:
    """The settings that a run has recorded.

    The files of a study differ in a few lines. Each setting is parsed by itself and remembered,
    which makes a thousand files ten times faster to read than the same text as a whole.

    Raises:
        ValueError: it cannot be read, or does not hold names and values.
    """
    import yaml

    try:
        text = read_record(path, MAX_SETTINGS)
        settings: dict[str, Any] = {}
        for setting in _NEXT_SETTING.split(text):
            settings |= _parse(setting)
        if not settings:
            raise ValueError("it holds nothing")
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path.name} cannot be read ({first_line(error)})") from error
    return settings


def write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Write settings whole, sorted by name.

    Raises:
        UserError: as `write_whole`.
    """
    import yaml

    write_text(path, yaml.safe_dump(dict(settings), sort_keys=True))


@lru_cache(maxsize=4096)
def _parse(text: str) -> dict[str, Any]:
    import yaml

    loaded = yaml.safe_load(text) or {}  # a comment is nothing
    if not isinstance(loaded, dict):
        raise ValueError("it does not hold names and values")
    return loaded


def _check_once(text: str, path: Path) -> None:
    """Refuse a name that appears twice in one mapping: YAML would silently use the last one.

    1 and yes are one name too: Python takes 1 and True for the same.
    """
    import yaml

    construct = yaml.constructor.SafeConstructor().construct_object
    nodes = [yaml.compose(text, Loader=yaml.SafeLoader)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        if not isinstance(node, yaml.MappingNode):
            continue
        nodes += [value for _, value in node.value]
        scalars = [name for name, _ in node.value if isinstance(name, yaml.ScalarNode)]
        names = [construct(name) for name in scalars if not name.tag.endswith(":merge")]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"--config {path}: {twice} appears twice; leave one out")


def _check_plain(text: str, path: Path) -> None:
    """Refuse aliases and deep nesting: an alias of aliases can unfold beyond all memory."""
    import yaml

    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > _MAX_DEPTH:
            raise UserError(f"--config {path}: aliases (*name) and deep nesting are not allowed")
