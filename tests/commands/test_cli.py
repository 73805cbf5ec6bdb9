"""The command line as a whole: one list of commands, help at once, mistakes in a line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from softmax_gradient_tampering.cli import help_text, main
from softmax_gradient_tampering.commands import registry
from softmax_gradient_tampering.commands.registry import COMMANDS

ROOT = Path(__file__).parents[2]
NAMES = [command.name for command in COMMANDS]

# Everything that answers from the command line alone, and its exit code.
AT_ONCE = {
    "": 2,
    "--help": 0,
    "help": 0,
    "--version": 0,
    "trian": 2,
    "recipes": 0,
    "recipes list": 0,
    **{f"{name} --help": 0 for name in NAMES},
    **{f"study {action} --help": 0 for action in ("run", "status", "commands", "search")},
    "train --lrr 1": 2,
    "validate --batch-size many": 2,
    "recipes shw": 2,
    "checkpoint": 2,
    "data check": 2,
    "study rnu": 2,
    "study run --nam x": 2,
    "report": 2,
    "plot filter-norms nowhere": 2,
}
HEAVY = {"torch", "timm", "torchvision", "numpy", "PIL", "sklearn", "scipy", "matplotlib", "rich"}
READS_YAML = ("recipes", "recipes list")


@pytest.mark.parametrize("line", AT_ONCE)
def test_what_needs_no_torch_does_not_load_it(line: str) -> None:
    code = "import atexit, sys; from softmax_gradient_tampering.program import sgt\n"
    code += "atexit.register(lambda: print('MODULES', *sys.modules)); sgt()"
    done = subprocess.run(
        [sys.executable, "-c", code, *line.split()], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == AT_ONCE[line], done.stderr
    output, _, modules = done.stdout.partition("MODULES ")
    heavy = HEAVY if line in READS_YAML else HEAVY | {"yaml"}
    assert heavy & set(modules.split()) == set()
    if done.returncode == 0:
        assert output.strip()
    elif line:
        assert re.fullmatch(r"sgt[ a-z]*: error: [^\n]+\n", done.stderr)


def test_the_help_is_made_of_the_list() -> None:
    listed = re.findall(r"^  (\w+) +(\S.*)$", help_text(), re.MULTILINE)
    assert listed == [(command.name, command.help) for command in COMMANDS]
    assert max(map(len, help_text().splitlines())) <= 80


def test_every_command_has_its_file_and_every_file_its_command() -> None:
    files = {path.stem for path in Path(registry.__file__).parent.glob("*.py")}
    assert files - {"__init__", "registry", "extras"} == set(NAMES)
    for command in COMMANDS:
        assert callable(command.load())


def test_the_documentation_names_commands_that_there_are() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for name in re.findall(r"(?:^|`)sgt ([a-z]\w*)", page.read_text(), re.MULTILINE):
            assert name in NAMES, f"{page.name} has sgt {name}"


def test_an_unknown_command_is_one_line_that_names_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["trian"]) == 2
    error = capsys.readouterr().err
    assert error == "sgt: error: unknown command 'trian'; did you mean train?\n"
    assert main(["\x1b[2J"]) == 2
    error = capsys.readouterr().err
    assert error == "sgt: error: unknown command '\\x1b[2J'; see sgt --help\n"
