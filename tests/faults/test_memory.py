"""Out of memory on the device, as torch says it: one line, and the checkpoints stay."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from softmax_gradient_tampering.errors import MachineError
from softmax_gradient_tampering.training.measure import evaluation
from softmax_gradient_tampering.training.step.trainer import Trainer
from tests.training.runs import assert_same_run, train

WORDS = ("--epochs", 3, "--output", "out")
RUN = (*WORDS, "--experiment", "run", "--resume", "auto")


def fail_at(call: int, original: Callable[..., Any]) -> Callable[..., Any]:
    """A function that runs out of memory at its call of a number, from 0."""
    calls = iter(range(1000))

    def function(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore")
        return original(*args, **kwargs)

    return function


@pytest.mark.parametrize(
    ("owner", "name", "call", "kept"),
    [
        (Trainer, "_add_gradient", 8, "last"),
        (Trainer, "_update", 8, "last"),  # half a step is not kept
        (evaluation, "predict", 3, "recovery-1-12"),  # the epoch is trained
    ],
    ids=["gradient", "update", "evaluation"],
)
def test_a_full_device_is_one_line_and_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, kept: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail_at(call, getattr(owner, name)))
        with pytest.raises(MachineError, match="out of memory on cpu at --batch-size 2") as caught:
            train(*RUN)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert "--grad-accum-steps" in str(caught.value)
    assert Path(f"out/run/{kept}.pth.tar").exists()
    assert len(list(Path("out/run").glob("recovery-*"))) == (kept != "last")
    assert train(*RUN).status == "finished"
    train(*WORDS, "--experiment", "whole", "--resume", "auto")
    assert_same_run(Path("out/run"), Path("out/whole"))


def test_a_full_device_before_the_run_leaves_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "to", fail_at(0, torch.nn.Module.to))
    with pytest.raises(MachineError, match="out of memory on cpu"):
        train(*RUN)
    assert not Path("out").exists()
