"""How several processes call one model: the options of torch's wrapper change no bit of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.training.children import run_children, train_py
from tests.training.runs import assert_same_run, program

WORDS = ("--model", "digits_cnn", "-b", "128", "--epochs", "2", "--output", ".", "--experiment")
CASES = {
    "accumulated": ("--grad-accum-steps", "2", "--clip-grad", "1", "--model-ema"),
    "the mean of statistics": ("--dist-bn", "reduce", "--opt", "adamw", "--lr", "0.01"),
}


def _with_torchs_defaults(words: Sequence[str]) -> None:
    """train.py, its model wrapped with no option but the devices."""
    from torch.nn.parallel import DistributedDataParallel

    from softmax_gradient_tampering.training.setup import model

    def wrap(module: Any, device_ids: Any, **_: Any) -> DistributedDataParallel:
        return DistributedDataParallel(module, device_ids=device_ids)

    vars(model)["DistributedDataParallel"] = wrap
    train_py(words)


@pytest.mark.parametrize("words", CASES.values(), ids=CASES.keys())
def test_two_processes_train_as_with_torchs_defaults(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert program(*WORDS, "ours", *words, processes=2).returncode == 0
    plain = run_children(_with_torchs_defaults, [*WORDS, "plain", *words], processes=2)
    assert plain.returncode == 0
    assert_same_run(tmp_path / "ours", tmp_path / "plain")


@pytest.mark.parametrize("dist_bn", ["reduce", "broadcast"])
def test_statistics_go_on_within_an_epoch_as_they_were(
    dist_bn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("--dist-bn", dist_bn)
    assert program(*WORDS, "whole", *words, processes=2).returncode == 0
    part = (*WORDS, "part", *words)
    assert program(*part, "--max-steps", 3, processes=2).returncode == 0
    assert program(*part, "--resume", "auto", processes=2).returncode == 0
    assert_same_run(tmp_path / "part", tmp_path / "whole")
