"""What is said and done while a batch is awaited."""

import signal
import time

import pytest

from softmax_gradient_tampering.errors import MachineError
from softmax_gradient_tampering.training.processes.preemption import Interrupted, StopRequest
from softmax_gradient_tampering.training.processes.waiting import BatchWait


def describe() -> str:
    return "worker 7 reads \x1b[2Ja.jpg"


def test_long_waits_are_reported_at_growing_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    wait = BatchWait(StopRequest(), 0)
    for seconds in (*range(500), *range(70)):  # one batch after another
        wait(seconds, describe)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1] for line in lines] == [
        f" no batch for {seconds} s" for seconds in (60, 120, 240, 480, 60)
    ]
    assert all(line.endswith("worker 7 reads \\x1b[2Ja.jpg") for line in lines)


def test_a_timeout_ends_a_wait() -> None:
    wait = BatchWait(StopRequest(), 0, timeout_s=5)
    wait(4, describe)
    with pytest.raises(MachineError, match="no batch for 5 s, and --batch-timeout is 5: worker 7"):
        wait(5, describe)


def test_a_signal_ends_a_wait_once_patience_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    request = StopRequest()
    impatient, patient = BatchWait(request, 0), BatchWait(request, 10)
    impatient(1, describe)
    request.signal = signal.SIGTERM
    with pytest.raises(Interrupted, match="SIGTERM") as caught:
        impatient(2, describe)
    assert not caught.value.is_agreed
    patient(2, describe)
    now = 109.0
    patient(11, describe)
    now = 110.0
    with pytest.raises(Interrupted):
        patient(12, describe)
