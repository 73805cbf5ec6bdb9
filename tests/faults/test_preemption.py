"""Signals: how soon a run ends, with what, and what it says."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from softmax_gradient_tampering.training.checkpoint import load_checkpoint
from tests.faults.test_kills import ROOT, hit
from tests.training.runs import TRAIN_PY

WORDS = ("--epochs", 2000, "--output", "out", "--experiment", "run")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130)]
)
def test_the_step_is_finished_and_one_recovery_checkpoint_written(number: int, code: int) -> None:
    assert hit("update", 7, number, *WORDS) == code
    (path,) = Path("out/run").glob("recovery-*")
    position = load_checkpoint(path)["softmax_gradient_tampering"]["position"]
    # The signal came in the eighth step of six an epoch.
    assert (position["epoch"], position["batch"], position["step"]) == (1, 2, 8)
    assert not Path("out/run/.lock").exists()
    assert not Path("out/run/result.json").exists()


def test_a_signal_in_an_evaluation_does_not_wait_for_its_end() -> None:
    assert hit("evaluation", 1, signal.SIGTERM, *WORDS, "-b", 64) == 143
    (path,) = Path("out/run").glob("recovery-*")
    position = load_checkpoint(path)["softmax_gradient_tampering"]["position"]
    assert (position["epoch"], position["batch"]) == (0, 22)  # trained, not evaluated


def test_the_whole_process_group_is_signalled_as_clusters_do(make_images, tmp_path: Path) -> None:
    data = make_images(tmp_path / "photos", {"ant": 9, "bee": 8})
    command = [sys.executable, str(TRAIN_PY), *map(str, WORDS), "--data_dir", str(data)]
    command += ["--model", "resnet20", "--img-size", "32", "-b", "4", "-j", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Val Acc" in line:  # workers are at work
                break
        os.killpg(process.pid, signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait(timeout=120) == 143, rest
    assert "Stopped by SIGTERM" in rest
    assert Path("out/run/last.pth.tar").exists()
