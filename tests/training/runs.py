"""Running the program in a test, and comparing what two runs left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from softmax_gradient_tampering.training.checkpoint.content import OUR_KEY, load_checkpoint
from softmax_gradient_tampering.training.config.arguments import parse_arguments
from softmax_gradient_tampering.training.records.run_files import Row, read_summary
from softmax_gradient_tampering.training.run import Result, run
from tests.training.children import run_children, train_py

ROOT = Path(__file__).parents[2]
TRAIN_PY = ROOT / "train.py"


def train(*words: str | int | float | Path, is_silent: bool = True) -> Result:
    """Run in this process."""
    return run(parse_arguments([str(word) for word in words]), is_silent=is_silent)


def program(
    *words: str | int | float | Path, processes: int = 1
) -> "subprocess.CompletedProcess[str]":
    """Run train.py in a child process, or in several that know of each other."""
    return run_children(train_py, [str(word) for word in words], processes)


def user_program(
    *words: str | int | float | Path, processes: int = 0
) -> "subprocess.CompletedProcess[str]":
    """Run train.py as a user would; under torchrun for a number of processes."""
    command = [sys.executable]
    if processes:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command += [str(TRAIN_PY), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300)


def environment() -> dict[str, str]:
    """Of a child process: one thread, and the tests to be imported beside what this one imports."""
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}


def assert_same_run(one: Path, other: Path) -> None:
    """Assert that two run folders are equal in all that an equal run may not differ in."""
    rows, expected = read_summary(one / "summary.csv"), read_summary(other / "summary.csv")
    drop: Row = {"images_per_s": None}
    assert [row | drop for row in rows] == [row | drop for row in expected], (rows, expected)
    names, expected_names = ({path.name for path in folder.iterdir()} for folder in (one, other))
    assert names == expected_names, names ^ expected_names
    for name in sorted(names):
        if name.endswith(".pth.tar"):
            assert_same(_comparable(one / name), _comparable(other / name), name)
    assert _result(one) == _result(other)
    assert (one / "args.yaml").read_text() == (other / "args.yaml").read_text()


def assert_same(value: Any, expected: Any, where: str) -> None:
    assert type(value) is type(expected), where
    if isinstance(value, torch.Tensor):
        assert torch.equal(value, expected), where
    elif isinstance(value, dict):
        assert list(value) == list(expected), where
        for key in value:
            assert_same(value[key], expected[key], f"{where}.{key}")
    elif isinstance(value, list | tuple):
        assert len(value) == len(expected), where
        for index, (item, other) in enumerate(zip(value, expected, strict=True)):
            assert_same(item, other, f"{where}[{index}]")
    else:
        assert value == expected, where


def _comparable(path: Path) -> dict[str, Any]:
    checkpoint = load_checkpoint(path)
    checkpoint["args"].pop("resume")
    checkpoint[OUR_KEY].pop("times")
    return checkpoint


def _result(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    for name in ("seconds", "resumes"):
        result.pop(name)
    result["final"].pop("images_per_s")
    return result
