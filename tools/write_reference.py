"""Writes docs/reference/commands.md and settings.md from the commands' own help and the settings.

usage: make reference
"""

import contextlib
import io
import os
import re
from pathlib import Path

from softmax_gradient_tampering.cli import help_text
from softmax_gradient_tampering.commands.registry import COMMANDS
from softmax_gradient_tampering.training.config.fields import GROUPS
from softmax_gradient_tampering.training.config.help_page import entries

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
WIDTH = 96
# Commands whose first word is an action with a help of its own.
ACTIONS = {"data": ("check", "imagenet"), "study": ("plan", "run", "status", "commands", "search")}

HEAD = "| flag | what it does | without it |\n|---|---|---|"

COMMANDS_PAGE = """# Commands

*For whoever knows what to do and wants to know how it is called.* This page is what each command
prints with `--help`, written by `make reference`. `train.py` is `sgt train` under its published
name; its flags, which `sgt validate` and every run of a study take too, are
[the settings](settings.md).

How a command ends: exit code 0, all is well; 2, a mistake in the call or in what it was given, or a
disk that is full, in one line that names the value and the cure; 1, the machine was at fault (a
process that was killed, a device without memory) or the program itself; 130 after Ctrl-C and 143
after SIGTERM, with what is needed to go on written.
"""

SETTINGS_PAGE = """# Settings of a run

*For whoever looks for a flag.* Every setting is a flag of `train.py` and `sgt train`, a key of a
YAML file for `--config` (with underscores), and what `sgt study run` gives to its runs after `--`.
Hyphens and underscores are one in a flag, and an unambiguous beginning of a name does. A switch is
turned off again by `--no-NAME`. Written by `make reference` from the settings themselves;
[Training](../training.md) explains what they do together.
"""


def commands_page() -> str:
    parts = [COMMANDS_PAGE, _block(help_text())]
    for command in COMMANDS:
        name = command.name
        if name in ("train", "validate"):
            continue
        parts.append(f"## sgt {name}\n\n{_block(_help(name))}")
        for action in ACTIONS.get(name, ()):
            parts.append(f"### sgt {name} {action}\n\n{_block(_help(name, action))}")
    return "\n".join(parts)


def settings_page() -> str:
    parts = [SETTINGS_PAGE]
    for title, group in GROUPS.items():
        heading = f"## {title[:1].upper()}{title[1:]}"
        parts.append(f"{heading}\n\n{HEAD}")
        for flag, text in entries(title, group):
            found = re.fullmatch(r"(.*) \[(.*)\]", text, re.DOTALL)
            what, unset = found.groups() if found else (text, "")
            parts.append(f"| `{flag}` | {_cell(what)} | {_cell(unset)} |")
        parts.append("")
    return "\n".join(parts)


def pages() -> dict[Path, str]:
    """The made pages by their files."""
    return {FOLDER / "commands.md": commands_page(), FOLDER / "settings.md": settings_page()}


def _help(name: str, *words: str) -> str:
    """What a command prints with --help."""
    command = next(command for command in COMMANDS if command.name == name)
    printed = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDTH + 2)  # argparse keeps two for itself
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            command.load()([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    return printed.getvalue()


def _block(text: str) -> str:
    return f"```text\n{text.strip()}\n```\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
