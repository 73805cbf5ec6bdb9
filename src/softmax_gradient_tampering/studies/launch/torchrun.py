"""Runs of several processes each: one torchrun job a run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.files.text import open_regular
from softmax_gradient_tampering.studies.launch.devices import environment_with
from softmax_gradient_tampering.studies.launch.pool import Ended, end_with_parent
from softmax_gradient_tampering.training.config.arguments import to_mapping
from softmax_gradient_tampering.training.config.fields import NOT_RECORDED, Config
from softmax_gradient_tampering.training.records.run_files import write_args

PROGRAM = "softmax_gradient_tampering.program"
_MAX_TAIL = 2**20  # bytes of a log's end that are searched for its error
_POLL_S = 0.5
_GRACE_S = 60.0  # for a step, and the recovery checkpoint after it
_END_S = 5.0


def train_command(folder: Path, num_processes: int, python: str = "python") -> list[str]:
    """The command that trains a cell in its own folder, or goes on with it.

    Args:
        folder: of the cell; its args.yaml is the configuration.
        num_processes: of the run.
        python: the interpreter's name.
    """
    command = ["sgt", "train"]
    if num_processes > 1:
        command = [python, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc_per_node={num_processes}", "-m", PROGRAM, "train"]
    command += ["--config", str(folder / "args.yaml")]
    return [*command, "--output", str(folder.parent), "--experiment", folder.name,
            "--resume", "auto"]  # fmt: skip


def prepare(folder: Path, config: Config) -> None:
    """Write the args.yaml that `train_command` reads, where the cell has none yet."""
    if not (folder / "args.yaml").exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be made ({error})") from error
        write_args(folder, to_mapping(config, leave_out=NOT_RECORDED))


class TorchrunPool:
    """Jobs of several processes; see `WorkerPool`, whose methods it has.

    Args:
        num_jobs: at a time.
        num_processes: of each.
        devices: the GPUs that each job sees; none for all that there are.
    """

    def __init__(self, num_jobs: int, num_processes: int, devices: Sequence[str] = ()) -> None:
        self._num_jobs = len(devices) or num_jobs
        self._num_processes = num_processes
        self._free = list(devices)
        self._devices: dict[str, str] = {}
        self._jobs: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}

    @property
    def num_idle(self) -> int:
        return self._num_jobs - len(self._jobs)

    def start(self, key: str, config: Config, is_trial: bool = False) -> None:
        """Begin a run; what it prints goes to run.log in its folder."""
        assert not is_trial, "worker processes try runs"
        folder = Path(config.output) / config.experiment
        prepare(folder, config)
        log = folder / "run.log"
        environment = None
        if self._free:
            self._devices[key] = self._free.pop(0)
            environment = environment_with(self._devices[key])
        try:
            with log.open("ab") as file:
                self._jobs[key] = (_popen(folder, self._num_processes, file, environment), log)
        except OSError as error:
            raise UserError(f"{folder}: the run cannot be started ({error})") from error

    def wait(self, timeout_s: float) -> list[Ended]:
        """The runs that have ended, at the latest after a time."""
        until = time.monotonic() + timeout_s
        while True:
            over = [key for key, (job, _) in self._jobs.items() if job.poll() is not None]
            if over or time.monotonic() >= until:
                return [self._end(key) for key in over]
            time.sleep(min(_POLL_S, timeout_s))

    def stop(self) -> None:
        """End the jobs; torchrun hands the signal on to its processes."""
        for job, _ in self._jobs.values():
            job.send_signal(signal.SIGTERM)
        for job, _ in self._jobs.values():
            try:
                job.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                os.killpg(job.pid, signal.SIGKILL)  # its processes with it
                with suppress(subprocess.TimeoutExpired):  # a dead disk holds it
                    job.wait(_END_S)

    def _end(self, key: str) -> Ended:
        job, log = self._jobs.pop(key)
        if key in self._devices:
            self._free.append(self._devices.pop(key))
        return Ended(key, "" if job.returncode == 0 else _reason(log, job.returncode))


def _popen(
    folder: Path, num_processes: int, log: IO[bytes], environment: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    command = train_command(folder, num_processes, sys.executable)
    # In a session of its own, Ctrl-C reaches the study alone, which decides what it means.
    return subprocess.Popen(
        command,
        stdout=log,
        stderr=log,
        env=environment,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )


def _reason(log: Path, code: int) -> str:
    """The program's own last word on an error, or the exit code."""
    try:
        with open_regular(log) as file:
            file.seek(max(0, log.stat().st_size - _MAX_TAIL))
            lines = file.read(_MAX_TAIL).decode("utf-8", "replace").splitlines()
    except OSError as error:  # the folder is gone, say
        return f"it ended with exit code {code}, and its log cannot be read ({error})"
    errors = [line for line in lines if line.startswith("sgt train: error: ")]
    if errors:
        return errors[-1].removeprefix("sgt train: error: ")
    return f"it ended with exit code {code}; {log} says more"
