"""The command line and the YAML files of a run: both become a Config, and nothing else."""

import argparse
import shutil
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.files.yaml_files import read_settings
from softmax_gradient_tampering.terminal.parser import ArgumentParser, nearest
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.config.help_page import SOURCES, help_page

FIELDS = {field.name: field for field in fields(Config)}
TYPES = get_type_hints(Config)
PUBLISHED_KEY = "published"
_SWITCH = {"true": True, "false": False}


def parse_arguments(
    argv: Sequence[str],
    program: str = "sgt train",
    find_recipe: Callable[[str], Path] | None = None,
) -> Config:
    """The Config of a command line; a --config file's values stand in for the defaults.

    Args:
        argv: the command line.
        program: its name in messages.
        find_recipe: gives the file of a --recipe by name.

    Hyphens and underscores in flag names are one; unambiguous beginnings of a name do.

    Raises:
        UserError: an unknown flag (the nearest is named), a wrong type or choice, or a
            --config file that does not fit.
        SystemExit: after --help.
    """
    namespace = given_flags(argv, program)
    path, recipe = namespace.pop("config", None), namespace.pop("recipe", None)
    if recipe is not None and (path or find_recipe is None):
        raise UserError(f"--recipe {recipe}: give it alone, without --config")
    if recipe is not None and find_recipe is not None:
        path = find_recipe(recipe)
    config = load_config(Path(path)) if path else Config()
    return replace(config, **{name: _frozen(value) for name, value in namespace.items()})


def given_flags(argv: Sequence[str], program: str = "sgt train") -> dict[str, Any]:
    """The flags that a command line names, by the names of Config's fields, and their values.

    Raises:
        UserError, SystemExit: as `parse_arguments`.
    """
    parser = build_parser(program)
    return vars(parser.parse_args([_hyphenated(word) for word in argv]))


def flag_value(name: str, text: str) -> Any:
    """The value of a flag from a text, as a plain value.

    Args:
        name: of a field of Config.
        text: several values with commas between them where the flag has several; true or false
            of a switch.

    Raises:
        UserError: it is no value of the flag.
    """
    size, kind = _kind(TYPES[name])
    option = f"--{name.replace('_', '-')}"
    if kind is bool:
        if text not in _SWITCH:
            raise UserError(f"{option}: expected true or false, got {text!r:.60}")
        return _SWITCH[text]
    number = text.count(",") + 1
    if kind in (int, float) and size and number > size:
        raise UserError(f"{option} {text:.60}: {number} values, where there are to be {size}")
    words = [f"{option}={text}"] if size == 1 else [option, *text.split(",")]
    return given_flags(words)[name]


def load_config(path: Path) -> Config:
    """The Config of a YAML file: a recipe, or the args.yaml of any run.

    Raises:
        UserError: the file cannot be read, or a key, type or choice is wrong.
    """
    loaded = read_settings(path)
    loaded.pop(PUBLISHED_KEY, None)  # a recipe's published figures
    check_once(loaded, str(path))
    return from_mapping(loaded, str(path))


def check_once(names: Iterable[Any], where: str) -> None:
    """Refuse a flag that is named twice, as batch_size and as batch-size.

    Raises:
        UserError: one is.
    """
    flags = [str(name).replace("-", "_") for name in names]
    if twice := next((name for name in flags if flags.count(name) > 1), None):
        raise UserError(f"{where}: {twice} appears twice; leave one out")


def from_mapping(mapping: Mapping[Any, Any], where: str) -> Config:
    """The Config of plain values by name, as YAML and JSON files hold them.

    Args:
        mapping: names and values; what is left out has its default.
        where: they come from, for messages.

    Raises:
        UserError: a name, type or choice is wrong.
    """
    values = {}
    for key, value in mapping.items():
        name = str(key).replace("-", "_")
        if name not in FIELDS:
            raise UserError(f"{where}: unknown key {key!r}{nearest(name, FIELDS)}")
        values[name] = _checked(name, value, f"{where}: {key}")
    return Config(**values)


def to_mapping(config: Config, leave_out: Sequence[str] = ()) -> dict[str, Any]:
    """The Config as plain types, ready for YAML, JSON and checkpoints."""
    values = {name: getattr(config, name) for name in FIELDS if name not in leave_out}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def build_parser(program: str) -> argparse.ArgumentParser:
    """The argparse parser of Config's fields."""
    parser = _TrainParser(prog=program, argument_default=argparse.SUPPRESS)
    for name in SOURCES:
        parser.add_argument(f"--{name}")
    for name, field in FIELDS.items():
        kwargs: dict[str, Any] = {}
        size, kind = _kind(TYPES[name])
        if kind is bool:
            is_negative = name.startswith("no_")
            kwargs["action"] = "store_true" if is_negative else argparse.BooleanOptionalAction
        else:
            kwargs["type"] = field.metadata["read"] or kind
            kwargs["choices"] = field.metadata["choices"] or None
            if size != 1:
                kwargs["nargs"] = size or ("*" if field.default == () else "+")
        flags = [*field.metadata["short"], f"--{name.replace('_', '-')}"]
        parser.add_argument(*flags, dest=name, **kwargs)
    return parser


class _TrainParser(ArgumentParser):
    def format_help(self) -> str:
        return help_page(self.prog, min(max(shutil.get_terminal_size().columns, 60), 100))


def _hyphenated(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _kind(annotation: Any) -> tuple[int, type]:
    """How many values a field holds, 0 for any number, and the type of each."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(arg for arg in get_args(annotation) if arg is not types.NoneType)
    if get_origin(annotation) is tuple:
        kind, *others = get_args(annotation)
        return (0 if Ellipsis in others else 1 + len(others)), kind
    return 1, annotation


def _checked(name: str, value: Any, where: str) -> Any:
    """A YAML value as its field's type; YAML reads 5e-4 as a string, which a float may be."""
    size, kind = _kind(TYPES[name])
    single, field = size == 1, FIELDS[name]
    if value is None:
        if types.NoneType in get_args(TYPES[name]):
            return None
        raise UserError(f"{where}: null is not allowed; leave the key out for {field.default!r}")
    if single == isinstance(value, list):
        expected = kind.__name__ if single else f"a list of {kind.__name__}"
        raise UserError(f"{where}: expected {expected}, got {value!r:.60}")
    if not single and size and len(value) != size:
        raise UserError(f"{where}: expected {size} values, got {len(value)}")
    elements = [_element(kind, element, where) for element in ([value] if single else value)]
    choices = field.metadata["choices"]
    for element in elements:
        if choices and element not in choices:
            allowed = ", ".join(repr(choice) for choice in choices)
            raise UserError(f"{where}: {element!r} is not one of {allowed}")
    if single and field.metadata["read"]:
        return field.metadata["read"](elements[0])
    return elements[0] if single else tuple(elements)


def _element(kind: type, value: Any, where: str) -> Any:
    if kind is float and not isinstance(value, bool) and isinstance(value, (int, float, str)):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    elif type(value) is kind:
        return value
    raise UserError(f"{where}: expected {kind.__name__}, got {value!r:.60}")
