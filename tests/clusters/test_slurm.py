"""A real Slurm, of one node on this machine: steps, requeued jobs, signals, a study's array."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from softmax_gradient_tampering.training.checkpoint.content import OUR_KEY, load_checkpoint
from softmax_gradient_tampering.training.records.run_files import read_summary
from tests.clusters.slurm import slurm, wait_until, why_not
from tests.training.runs import ROOT, TRAIN_PY, assert_same_run, train

pytestmark = [pytest.mark.slow, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

# 1,347 images: 42 batches of 32 an epoch.
DIGITS = ("-b", 32, "--output", "out", "--log-interval", 1000, "--modify-softmax", 0.25)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with slurm(tmp_path_factory.mktemp("sl")) as environment:
        paths = f"{ROOT / 'src'}:{ROOT}"
        yield environment | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


def words(*given: object) -> list[str]:
    return [sys.executable, str(TRAIN_PY), *map(str, (*DIGITS, *given))]


def run(command: list[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def submit(lines: list[str], environment: dict[str, str], *flags: str) -> str:
    """Submit a batch script; returns the job's number."""
    script = Path("job.sh")
    script.write_text("\n".join(["#!/bin/bash", *lines]) + "\n")
    command = ["sbatch", "--parsable", "--output=job-%j.txt", "--open-mode=append", *flags]
    done = run([*command, str(script)], environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def states(job: str, environment: dict[str, str]) -> str:
    """The states of a job's tasks; empty when it has left the queue."""
    return run(["squeue", "-h", "-j", job, "-o", "%T"], environment).stdout


def wait_for(job: str, environment: dict[str, str]) -> None:
    def is_over() -> bool:
        return not set(states(job, environment).split()) - {"COMPLETED", "FAILED"}

    wait_until(is_over)


def processes_of(path: Path) -> int:
    number = load_checkpoint(path)[OUR_KEY]["num_processes"]
    assert isinstance(number, int)
    return number


def test_the_tasks_of_a_step_train_one_run(environment: dict[str, str]) -> None:
    command = words("--epochs", 1, "--experiment", "a")
    done = run(["srun", "-n", "4", *command], environment)
    assert done.returncode == 0, done.stderr
    assert processes_of(Path("out/a/last.pth.tar")) == 4
    assert done.stdout.count("Run folder") == 1
    assert [path.name for path in Path("out").iterdir()] == ["a"]


def test_a_process_alone_in_an_allocation_of_four_tasks_stays_alone(
    environment: dict[str, str],
) -> None:
    inside = " ".join(words("--epochs", 1, "--experiment", "inside"))
    step = " ".join(words("--epochs", 1, "--experiment", "step"))
    job = submit([inside, f"srun -n 1 {step}"], environment, "-n", "4")
    wait_for(job, environment)
    for name in ("inside", "step"):
        assert processes_of(Path("out", name, "last.pth.tar")) == 1


def test_a_requeued_job_goes_on_and_equals_the_unbroken_run(environment: dict[str, str]) -> None:
    train(*DIGITS, "--epochs", 40, "--experiment", "whole")
    command = " ".join(words("--epochs", 40, "--experiment", "broken", "--resume", "auto"))
    job = submit([f"exec {command}"], environment, "--requeue")
    said = Path(f"job-{job}.txt")
    wait_until(lambda: said.exists() and "Val Acc" in said.read_text())
    assert run(["scontrol", "requeue", job], environment).returncode == 0
    wait_until(lambda: Path("out/broken/result.json").exists())
    wait_for(job, environment)
    assert "Stopped by SIGTERM" in said.read_text()
    assert "Going on from out/broken/recovery-" in said.read_text()
    assert_same_run(Path("out/broken"), Path("out/whole"))


def test_the_warning_signal_keeps_what_was_trained(environment: dict[str, str]) -> None:
    command = " ".join(words("--epochs", 4000, "--experiment", "a"))
    job = submit([f"srun -n 2 {command}"], environment, "-n", "2")
    said = Path(f"job-{job}.txt")
    wait_until(lambda: said.exists() and "Val Acc" in said.read_text())
    assert run(["scancel", "--signal=USR1", job], environment).returncode == 0
    wait_for(job, environment)
    assert "Stopped by SIGUSR1" in said.read_text()
    (recovery, *_) = sorted(Path("out/a").glob("recovery-*"))
    assert processes_of(recovery) == 2


def script_of_the_page(words: list[str]) -> str:
    """The script of docs/clusters.md for this Slurm, which has no GPUs, and for the digits."""
    page = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", page, re.DOTALL)
    recipe = r"--recipe \S+ --data_dir IMAGENET --dali \\\n"
    for found, there in (
        ("#SBATCH --gpus-per-node=4\n", ""),
        ("#SBATCH --cpus-per-task=8\n", ""),
        ("--ntasks-per-node=4\n", "--ntasks-per-node=2\n"),
        ("srun sgt train", f"srun {sys.executable} {TRAIN_PY}"),
    ):
        assert script.count(found) == 1
        script = script.replace(found, there)
    script, number = re.subn(recipe, lambda _: f"{shlex.join(words)} ", script)
    assert number == 1
    return script


def test_the_script_of_the_page_requeues_itself(environment: dict[str, str]) -> None:
    words = [*map(str, DIGITS), "--epochs", "40"]
    Path("job.sh").write_text(script_of_the_page(words))
    job = run(["sbatch", "--parsable", "job.sh"], environment).stdout.strip()
    said = Path(f"resnet50-{job}.txt")
    wait_until(lambda: said.exists() and "Val Acc" in said.read_text())
    # What Slurm itself does at the time that --signal says.
    assert run(["scancel", "--signal=USR1", job], environment).returncode == 0
    folder = Path("out/resnet50-0.3-seed-0")
    wait_until(lambda: (folder / "result.json").exists())
    wait_for(job, environment)
    assert "Stopped by SIGUSR1" in said.read_text()
    assert f"Going on from {folder}/recovery-" in said.read_text()
    assert processes_of(folder / "last.pth.tar") == 2
    whole = [sys.executable, str(TRAIN_PY), *words, "--seed", "0", "--experiment", "whole"]
    done = run(["srun", "-n", "2", *whole], environment)
    assert done.returncode == 0, done.stderr
    assert_same_run(folder, Path("out/whole"))


def test_a_task_of_a_study_keeps_what_it_trained_when_its_time_is_over(
    environment: dict[str, str],
) -> None:
    program = [sys.executable, "-m", "softmax_gradient_tampering.program"]
    plan = ["study", "plan", "--name", "s", "--output", "studies", "--alphas", "1", "--seeds", "1"]
    shared = ["--processes-per-run", "2", "--", "--epochs", "4000", "--log-interval", "1000"]
    done = run([*program, *plan, *shared], environment)
    assert done.returncode == 0, done.stderr
    script = run([*program, "study", "commands", "studies/s", "--slurm"], environment)
    Path("array.sh").write_text(script.stdout)
    flags = ["--output=task.txt", "--open-mode=append", "--requeue", "-n", "1"]
    job = run(["sbatch", "--parsable", *flags, "array.sh"], environment).stdout.strip()
    said = Path("task.txt")
    wait_until(lambda: said.exists() and "Val Acc" in said.read_text())
    # What Slurm itself does at the time that --signal=B:TERM says.
    assert run(["scancel", "--batch", "--signal=TERM", job], environment).returncode == 0
    wait_for(job, environment)
    assert "Stopped by SIGTERM" in said.read_text()
    (recovery, *_) = sorted(Path("studies/s/cells").glob("*/recovery-*"))
    assert processes_of(recovery) == 2


def test_the_array_script_of_a_study_runs_unedited(environment: dict[str, str]) -> None:
    program = [sys.executable, "-m", "softmax_gradient_tampering.program"]
    plan = ["study", "plan", "--name", "s", "--output", "studies", "--alphas", "1", "0.5"]
    done = run([*program, *plan, "--seeds", "2", "--", "--epochs", "2"], environment)
    assert done.returncode == 0, done.stderr
    script = run([*program, "study", "commands", "studies/s", "--slurm"], environment)
    assert script.returncode == 0, script.stderr
    Path("array.sh").write_text(script.stdout)
    job = run(["sbatch", "--parsable", "array.sh"], environment).stdout.strip()
    wait_for(job, environment)
    done = run([*program, "study", "status", "studies/s"], environment)
    assert done.returncode == 0, done.stderr
    assert len([*Path("studies/s").glob("cells/*/result.json")]) == 4, done.stdout
    assert all(read_summary(path) for path in Path("studies/s").glob("cells/*/summary.csv"))
