"""Signals: how soon a run ends, with what, and what it says."""

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.checkpoint.content import load_checkpoint
from softmax_gradient_tampering.training.measure import predictions
from tests.faults.test_kills import hit
from tests.training.runs import TRAIN_PY, assert_same_run, environment, train

WORDS = ("--epochs", 2000, "--output", "out", "--experiment", "run")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        *((signal.SIGTERM, 143), (signal.SIGUSR1, 143)),
        *((signal.SIGINT, 130), (signal.SIGHUP, 143)),
    ],
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_before_the_first_step_ends_with_the_same_code(number: int) -> None:
    assert hit("set-up", 0, number, *WORDS) == 143
    assert not Path("out").exists()


def test_a_signal_in_the_last_evaluation_of_a_resumed_run_is_heeded() -> None:
    words = ("--epochs", 1, "--output", "out", "--experiment", "run")
    train(*words)
    Path("out/run/result.json").unlink()
    mine = (*words, "--resume", "auto")
    assert hit("evaluation", 1, signal.SIGTERM, *mine, "-b", 64) == 143
    assert not Path("out/run/result.json").exists()
    assert train(*mine).status == "finished"


def test_a_file_that_cannot_be_read_costs_no_more_than_the_batch(
    make_images: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_images(tmp_path / "photos", {"ant": 9, "bee": 8})
    bad = data / "val" / "ant" / "000.jpg"
    whole = bad.read_bytes()
    bad.write_bytes(b"")
    words: tuple[Any, ...] = (
        "--data_dir",
        data,
        "--model",
        "resnet20",
        "--img-size",
        32,
        "-b",
        4,
        "--epochs",
        1,
    )
    words = (*words, "--output", "out", "--experiment", "run")
    with pytest.raises(UserError, match=r"000\.jpg"):
        train(*words)
    assert len(list(Path("out/run").glob("recovery-*"))) == 1  # trained, not evaluated
    bad.write_bytes(whole)
    resumed = train(*words, "--resume", "auto")
    assert resumed.status == "finished"
    expected = train(*words[:-1], "whole")
    assert resumed.rows[0]["train_loss"] == expected.rows[0]["train_loss"]


def test_a_run_under_nohup_outlives_the_terminal() -> None:
    words = map(str, ("update", 7, int(signal.SIGHUP), 0, *WORDS, "--epochs", 2))
    command = ["nohup", sys.executable, "-m", "tests.faults.victim", *words]
    done = subprocess.run(command, env=environment(), capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert Path("out/run/result.json").exists()


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&- <&-"])
def test_streams_that_are_closed_at_the_start_do_not_end_a_run(closed: str) -> None:
    words = f"--epochs 2 --output out --experiment run --log-interval 1 {closed}"
    command = f"exec {shlex.join([sys.executable, str(TRAIN_PY)])} {words}"
    assert subprocess.run(command, shell=True, env=environment(), timeout=300).returncode == 0
    assert load_checkpoint(Path("out/run/last.pth.tar"))["epoch"] == 2
    train("--epochs", 2, "--output", "out", "--experiment", "whole", "--log-interval", 1)
    assert_same_run(Path("out/run"), Path("out/whole"))


def test_output_that_nobody_takes_does_not_end_a_run() -> None:
    command = [sys.executable, str(TRAIN_PY), "--epochs", "2", "--output", "out"]
    command += ["--experiment", "run", "--batch-size", "2000"]  # of which a warning is printed
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, env=environment(), stdout=full, stderr=full)
    assert done.returncode == 0
    assert Path("out/run/result.json").exists()


def take_the_terminal() -> None:
    """Make the terminal on standard input that of this process, which leads a new session."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize("has_nohup", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_terminal_that_is_closed_ends_a_run_in_order_or_not_at_all(has_nohup: bool) -> None:
    screen, terminal = os.openpty()
    words = [*WORDS[:1], 20 if has_nohup else 2000, *WORDS[2:]]
    command = [sys.executable, str(TRAIN_PY), *map(str, words)]
    if has_nohup:
        command = ["sh", "-c", f"trap '' HUP; exec {shlex.join(command)}"]
    with subprocess.Popen(
        command,
        env=environment() | {"TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=take_the_terminal,
    ) as process:
        os.close(terminal)
        shown = b""
        while b"epoch" not in shown:  # the bar is there
            shown += os.read(screen, 4096)
        os.close(screen)
        assert process.wait(timeout=300) == (0 if has_nohup else 143)
    assert Path("out/run/result.json").exists() == has_nohup
    assert not Path("out/run/.lock").exists()


def test_a_signal_while_predictions_are_made_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--epochs", 2, "--save-predictions", "--output", "out")
    train(*words, "--experiment", "whole")

    def predict(*args: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return original(*args)

    original = predictions.predict
    mine = (*words, "--experiment", "run", "--resume", "auto")
    with monkeypatch.context() as patch:
        patch.setattr("softmax_gradient_tampering.training.session.predict", predict)
        assert train(*mine).exit_code == 143
    assert not Path("out/run/result.json").exists()
    train(*mine)
    assert_same_run(Path("out/run"), Path("out/whole"))


def test_the_whole_process_group_is_signalled_as_clusters_do(make_images, tmp_path: Path) -> None:
    data = make_images(tmp_path / "photos", {"ant": 9, "bee": 8})
    command = [sys.executable, str(TRAIN_PY), *map(str, WORDS), "--data_dir", str(data)]
    command += ["--model", "resnet20", "--img-size", "32", "-b", "4", "-j", "2"]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True
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
