"""torchrun puts new processes in the place of lost ones, and the run goes on by itself."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from softmax_gradient_tampering.training.records.run_files import read_summary
from tests.faults.test_kills import DIGITS
from tests.training.runs import assert_same_run, environment, program, train


@pytest.mark.parametrize(
    "experiment", [("--experiment", "broken"), pytest.param((), marks=pytest.mark.slow)]
)
def test_a_lost_process_is_replaced(experiment: tuple[str, ...]) -> None:
    words = tuple(map(str, (*DIGITS, "-b", 128, "--output", "out")))
    assert program(*words, "--experiment", "whole", processes=2).returncode == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", "--max-restarts=1", "-m", "tests.faults.victim"]
    command += ["update", "20", str(int(signal.SIGKILL)), "1", *words, *experiment]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Going on from" in done.stdout
    (broken,) = [path for path in Path("out").iterdir() if path.name != "whole"]
    assert_same_run(broken, Path("out/whole"))


def test_another_number_of_processes_goes_on_with_the_same_samples(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("--model", "digits_mlp_plain", "--epochs", 2, "--output", "out")
    train(*words, "-b", 64, "--experiment", "whole")
    mine = (*words, "--experiment", "broken")
    assert program(*mine, "-b", 32, "--max-steps", 8, processes=2).returncode == 0
    resumed = train(*mine, "-b", 64, "--resume", "auto", is_silent=False)
    assert "Note: processes: 1, and 2 in the checkpoint" in capsys.readouterr().out
    assert resumed.status == "finished"
    rows, expected = (read_summary(Path("out", n, "summary.csv")) for n in ("broken", "whole"))
    for row, other in zip(rows, expected, strict=True):
        # The same samples in the same order, but for one of 1,347 that two processes leave out.
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=5e-3)
