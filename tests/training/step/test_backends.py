"""Torch's switches for a GPU: set by the flags; they can be set and read without one."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.step.backends import describe_backends, set_backends
from tests.training.runs import train

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def switches() -> dict[str, Any]:
    found = describe_backends(GPU)
    assert found is not None
    return {name: found[name] for name in ("cudnn_benchmark", "tf32", "deterministic")}


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = switches() | {"float32_matmul": torch.get_float32_matmul_precision()}
    yield
    torch.backends.cudnn.benchmark = before["cudnn_benchmark"]
    torch.backends.cudnn.allow_tf32 = before["tf32"]
    torch.set_float32_matmul_precision(before["float32_matmul"])
    torch.use_deterministic_algorithms(before["deterministic"])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, (True, True, False)),
        ({"tf32": False}, (True, False, False)),
        ({"cudnn_benchmark": False}, (False, True, False)),
        ({"deterministic": True}, (False, True, True)),
    ],
)
def test_the_flags_set_the_switches_whatever_they_were(
    flags: dict[str, bool], expected: tuple[bool, ...]
) -> None:
    for before in (Config(tf32=False, deterministic=True), Config()):
        set_backends(before, GPU)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            set_backends(Config(**flags), GPU)  # type: ignore[arg-type]
        assert tuple(switches().values()) == expected


@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_has_one_answer_under_all_of_torchs_names(tf32: bool) -> None:
    """torch ends with an error where its names differ."""
    set_backends(Config(tf32=tf32), GPU)
    matmul, cudnn = torch.backends.cuda.matmul, cast("Any", torch.backends.cudnn)
    assert matmul.allow_tf32 == cudnn.allow_tf32 == tf32
    for precision in (matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision):
        assert (precision == "tf32") == tf32
    with cudnn.flags(enabled=True):
        pass


def test_a_cpu_has_no_switches(tmp_path: Path) -> None:
    before = switches()
    set_backends(Config(tf32=not before["tf32"], deterministic=True), CPU)
    assert switches() == before
    train("--epochs", 1, "--output", tmp_path, "--experiment", "run", "--deterministic")
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["backends"] is None
