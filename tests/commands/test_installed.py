"""The wheel with torch alone: the loss works, help is there, commands say what they need."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import softmax_gradient_tampering
from softmax_gradient_tampering.commands.extras import describe_missing
from softmax_gradient_tampering.commands.registry import COMMANDS
from tests.commands.installed import ROOT, Installed

EXTRAS = {command.name: ",".join(command.extras) for command in COMMANDS}
# Of every command a call that does its work, and what the extras are that it lacks.
CALLS = {
    "train --epochs 1": EXTRAS["train"],
    "train --recipe resnet18/step-scheduler-alpha-1.0": EXTRAS["train"],
    "validate --resume last.pth.tar": EXTRAS["validate"],
    "recipes list": EXTRAS["recipes"],
    "recipes schedule resnet18/step-scheduler-alpha-1.0": EXTRAS["recipes"],
    "checkpoint show last.pth.tar": EXTRAS["checkpoint"],
    "data check .": EXTRAS["data"],
    "study run --name first": EXTRAS["study"],
    "study search --name first": EXTRAS["study"],
    "report summary.csv": EXTRAS["report"],
    "plot filter-norms .": EXTRAS["plot"],
    "demo --seeds 1": EXTRAS["demo"],
}
LOSS = """\
import sys, warnings
import torch
from softmax_gradient_tampering import tampered_cross_entropy
z = torch.randn(4, 5, requires_grad=True)
tampered_cross_entropy(z, torch.arange(4), alpha=0.25).backward()
expected = (torch.softmax(z / 4, 1) - torch.eye(4, 5)) / 4
torch.testing.assert_close(z.grad, expected)
print(*({"numpy", "timm", "yaml", "rich"} & set(sys.modules)), __import__(
    "softmax_gradient_tampering").__file__)
"""


@pytest.fixture(scope="session")
def torch_alone(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("torch-alone"), "torch")


def test_the_loss_works(torch_alone: Installed, tmp_path: Path) -> None:
    done = torch_alone.run("-W", "ignore", "-c", LOSS, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(torch_alone.python.parents[1])


@pytest.mark.parametrize(
    "line",
    [
        *("", "--version"),
        *(command.name for command in COMMANDS),
        *(f"study {action}" for action in ("run", "status", "commands", "search")),
    ],
)
def test_every_help_is_there(torch_alone: Installed, tmp_path: Path, line: str) -> None:
    words = line.split() if line == "--version" else [*line.split(), "--help"]
    done = torch_alone.sgt(*words, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(("usage: sgt", "sgt 0."))


@pytest.mark.parametrize("line", CALLS)
def test_every_command_names_the_extra_in_one_line(
    torch_alone: Installed, tmp_path: Path, line: str
) -> None:
    (tmp_path / "filter_norms.npz").touch()
    done = torch_alone.sgt(*line.split(), folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert re.fullmatch(
        rf"sgt {line.split()[0]}: error: it needs \w+, which is not installed; "
        rf"pip install 'softmax-gradient-tampering\[{CALLS[line]}\]'\n",
        done.stderr,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["filter_norms.npz"]


def test_every_library_of_an_extra_is_known() -> None:
    """Bench and integrations bring what is compared with, and nothing that a command imports."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    modules = {
        "pyyaml": "yaml",
        "scikit-learn": "sklearn",
        "pillow": "PIL",
        "nvidia-dali-cuda130": "nvidia",
    }
    for extra in ("train", "study", "search", "log", "dali"):
        for requirement in project["optional-dependencies"][extra]:
            name = re.split(r"[^\w-]", requirement)[0]
            if name == "softmax-gradient-tampering":
                continue
            error = ModuleNotFoundError(name=f"{modules.get(name, name)}.part")
            assert f"[{extra}]'" in str(describe_missing(error, ()))
            assert f"[first,{extra}]'" in str(describe_missing(error, ("first",)))


def test_another_missing_module_is_a_mistake_of_the_program() -> None:
    assert describe_missing(ModuleNotFoundError(name="nowhere"), ("train",)) is None


def test_a_users_strict_type_check_passes_and_sees_our_types(
    torch_alone: Installed, tmp_path: Path
) -> None:
    """The README's example has no error, and each of our names used wrongly has one."""
    pytest.importorskip("mypy")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)[0]
    (tmp_path / "example.py").write_text(example)
    names = [*softmax_gradient_tampering.__all__, "tampered_crossentropy"]
    wrong = [f"{name}: int = sgt.{name}" for name in names]
    (tmp_path / "wrong.py").write_text(
        "\n".join(["import softmax_gradient_tampering as sgt", *wrong])
    )
    # Torch has functions without annotations, `Tensor.backward` among them.
    options = ["--strict", "--untyped-calls-exclude=torch", "--no-error-summary"]
    options += ["--python-executable", str(torch_alone.python), "--cache-dir", "cache"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "example.py", "wrong.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    found = re.findall(r"^(\w+\.py):(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE)
    expected = [("wrong.py", str(line), "assignment") for line in range(2, len(names) + 1)]
    assert found == [*expected, ("wrong.py", str(len(names) + 1), "attr-defined")], done.stdout
