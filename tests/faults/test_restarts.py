"""torchrun puts new processes in the place of lost ones, and the run goes on by itself."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.test_kills import DIGITS, ROOT
from tests.training.runs import assert_same_run, program


@pytest.mark.parametrize(
    "experiment", [("--experiment", "broken"), pytest.param((), marks=pytest.mark.slow)]
)
def test_a_lost_process_is_replaced(experiment: tuple[str, ...]) -> None:
    words = tuple(map(str, (*DIGITS, "-b", 128, "--output", "out")))
    assert program(*words, "--experiment", "whole", processes=2).returncode == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", "--max-restarts=1", "-m", "tests.faults.victim"]
    command += ["update", "20", str(int(signal.SIGKILL)), "1", *words, *experiment]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Going on from" in done.stdout
    (broken,) = [path for path in Path("out").iterdir() if path.name != "whole"]
    assert_same_run(broken, Path("out/whole"))
