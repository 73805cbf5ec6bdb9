"""GPUs for the runs of a study: which run sees which, on made-up machines."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.launch import devices, runner
from softmax_gradient_tampering.studies.launch.devices import device_slots
from softmax_gradient_tampering.studies.launch.pool import WorkerPool
from softmax_gradient_tampering.studies.launch.runner import options_for_this_machine
from softmax_gradient_tampering.studies.launch.torchrun import TorchrunPool
from softmax_gradient_tampering.studies.plan.machine import Machine
from softmax_gradient_tampering.training.config.fields import Config


@pytest.fixture(autouse=True)
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (devices, runner):
        monkeypatch.setattr(module, "count_gpus", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("gpus", "jobs", "processes", "slots"),
    [
        ("all", 1, 1, ("0", "1", "2", "3")),
        ("3,1", 1, 1, ("3", "1")),
        ("2", 3, 1, ("2", "2", "2")),
        ("0,1", 2, 1, ("0", "1", "0", "1")),
        ("all", 1, 2, ("0,1", "2,3")),
    ],
)
def test_every_run_at_a_time_has_its_gpus(
    gpus: str, jobs: int, processes: int, slots: tuple[str, ...]
) -> None:
    assert device_slots(gpus, jobs, processes) == slots
    asked = Machine(gpus=gpus, jobs_per_gpu=jobs)
    options = options_for_this_machine(asked, processes)
    assert (options.devices, options.num_jobs) == (slots, len(slots))


def test_without_the_flag_one_run_at_a_time_sees_all_gpus() -> None:
    options = options_for_this_machine(Machine())
    assert (options.devices, options.num_jobs) == ((), 1)


@pytest.mark.parametrize(
    ("asked", "processes", "message"),
    [
        (Machine(gpus="4"), 1, "--gpus 4: torch sees 4, numbered from 0"),
        (Machine(gpus="-1"), 1, "--gpus -1: torch sees 4"),
        (Machine(gpus="1,1"), 1, "a GPU stands there twice"),
        (Machine(gpus="both"), 1, "--gpus both: expected all, or numbers such as 0,1,3"),
        (Machine(gpus="0,"), 1, "expected all"),
        (Machine(gpus="0,1,2"), 2, "3 GPUs are not whole groups of the 2 of --processes-per-run"),
        (Machine(gpus="all", jobs_per_gpu=0), 1, "--jobs-per-gpu 0: must be at least 1"),
        (Machine(jobs_per_gpu=2), 1, "--jobs-per-gpu belongs to --gpus"),
        (Machine(gpus="all", num_jobs=8), 1, "--jobs and --gpus: --gpus says how many"),
    ],
)
def test_what_cannot_be_is_refused(asked: Machine, processes: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        options_for_this_machine(asked, processes)


@pytest.mark.parametrize("gpus", ["all", "0"])
def test_a_machine_without_gpus_says_so(gpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "count_gpus", lambda: 0)
    with pytest.raises(UserError, match=f"--gpus {gpus}: torch sees no GPU"):
        device_slots(gpus, 1)


@pytest.mark.parametrize(
    ("seen", "slot", "expected"),
    [(None, "1", "1"), ("5,7,2", "1", "7"), ("5,7,2", "2,0", "2,5"), ("GPU-a,GPU-b", "1", "GPU-b")],
)
def test_a_run_sees_its_part_of_what_this_process_sees(
    seen: str | None, slot: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    assert devices.environment_with(slot)["CUDA_VISIBLE_DEVICES"] == expected
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == seen
    code = (
        "import os, sys; from softmax_gradient_tampering.studies.launch import devices; "
        "devices.use_devices(sys.argv[1]); print(os.environ['CUDA_VISIBLE_DEVICES'])"
    )
    done = subprocess.run([sys.executable, "-c", code, slot], capture_output=True, text=True)
    assert done.stdout.strip() == expected


def test_workers_are_handed_their_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[str] = []

    class Process:
        """A worker that is never made."""

        def __init__(self, target: object, args: tuple[Any, ...], daemon: bool) -> None:
            handed.append(args[2])
            self.end = os.dup(args[0].fileno())  # it would hold its end of the pipe

        def start(self) -> None: ...
        def is_alive(self) -> bool: ...  # type: ignore[empty-body]
        def join(self, timeout: float | None = None) -> None: ...

    context = multiprocessing.get_context("spawn")
    monkeypatch.setattr(context, "Process", Process)
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: context)
    workers = WorkerPool(2, 1, ("0", "1"))
    for key in ("a", "b"):
        workers.start(key, Config())
    assert handed == ["0", "1"]
    workers.stop()


def test_a_torchrun_job_takes_a_slot_and_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Job:
        returncode = 0

        def poll(self) -> int:
            return 0

    def popen(command: object, env: dict[str, str], **_: object) -> Job:
        seen.append(env["CUDA_VISIBLE_DEVICES"])
        return Job()

    monkeypatch.setattr(subprocess, "Popen", popen)
    jobs = TorchrunPool(2, 2, ("0,1", "2,3"))
    for number in range(2):
        jobs.start(str(number), Config(output=str(Path.cwd()), experiment=str(number)))
    assert jobs.num_idle == 0
    assert len(jobs.wait(1.0)) == 2
    jobs.start("2", Config(output=str(Path.cwd()), experiment="2"))
    assert seen == ["0,1", "2,3", "0,1"]
