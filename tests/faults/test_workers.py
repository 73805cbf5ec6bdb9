"""Loader workers that are killed or stopped, and workers that outlive nothing."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from softmax_gradient_tampering.training.checkpoint.content import place
from softmax_gradient_tampering.training.checkpoint.folder import CheckpointFolder
from tests.faults.processes import children, has_ended
from tests.training.runs import TRAIN_PY, assert_same_run, environment, program, train

WORDS: tuple[str | int, ...] = (
    "--data_dir",
    "photos",
    "--model",
    "resnet20",
    "--img-size",
    32,
    "-b",
    4,
    "-j",
    2,
)
WORDS = (*WORDS, "--epochs", 60, "--eval-every", 30, "--output", "out")
RUN = (*WORDS, "--experiment", "run")


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, make_images: Callable[..., Path]) -> None:
    make_images(tmp_path / "photos", {"ant": 9, "bee": 8})


@contextmanager
def running(*words: object) -> Iterator[tuple["subprocess.Popen[str]", list[int]]]:
    """A training program with workers, in its first epochs; when it is left, none is left."""
    command = [sys.executable, str(TRAIN_PY), *map(str, (*RUN, "--log-interval", 1, *words))]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=environment(), stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            assert process.stdout is not None
            next(line for line in process.stdout if line.startswith("   [  2:"))
            workers = children(process.pid)
            assert len(workers) == 2
            yield process, workers
        finally:
            process.kill()
    until = time.monotonic() + 30
    while not all(map(has_ended, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert all(map(has_ended, workers))


def assert_all_is_kept(output: str) -> None:
    """Assert that the newest checkpoint has all batches behind it that the output names."""
    newest = CheckpointFolder(Path("out/run")).newest()
    assert newest is not None
    epochs, batches = place(newest.content)
    epoch, batch = map(int, re.findall(r"\[ *(\d+): *(\d+)/   3\]", output)[-1])
    assert 4 * epochs + batches >= 4 * (epoch - 1) + batch + 1


def test_a_killed_worker_is_one_line_and_costs_no_step() -> None:
    with running() as (process, workers):
        os.kill(workers[0], signal.SIGKILL)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    reason = rf"loader worker {workers[0]}, one of 2, was ended by SIGKILL, .*fewer --workers"
    assert re.fullmatch(rf"train\.py: error: {reason}.*--resume auto\n", errors)
    assert not Path("out/run/.lock").exists()
    assert_all_is_kept(output)
    assert train(*RUN, "--resume", "auto").status == "finished"
    train(*WORDS, "--experiment", "whole")
    assert_same_run(Path("out/run"), Path("out/whole"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_obeyed_while_workers_are_stopped(number: int) -> None:
    with running() as (process, workers):
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        time.sleep(1)  # the batches that are read already are trained on
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else 143), errors
    assert "Stopped by" in output
    assert_all_is_kept(output)


def test_no_worker_outlives_a_killed_trainer() -> None:
    with running() as (process, workers):
        os.kill(workers[1], signal.SIGSTOP)
        process.kill()


@pytest.mark.slow
def test_torchrun_replaces_a_process_whose_worker_was_killed() -> None:
    words = tuple(map(str, (*WORDS, "-b", 2, "-j", 1, "--epochs", 3, "--recovery-interval", 2)))
    assert program(*words, "--experiment", "whole", processes=2).returncode == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", "--max-restarts=1", "-m", "tests.faults.victim"]
    command += ["update", "6", str(-signal.SIGKILL), "1", *words, "--experiment", "run"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "was ended by SIGKILL" in done.stderr
    assert "Going on from" in done.stdout
    assert_same_run(Path("out/run"), Path("out/whole"))
