"""Launching: what is missing is run, once, by whoever claims it; failures, edits, selection."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softmax_gradient_tampering.cli import main
from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.launch import pool
from softmax_gradient_tampering.studies.launch.driver import Driver
from softmax_gradient_tampering.studies.launch.pool import Ended
from softmax_gradient_tampering.studies.launch.progress import StudyProgress
from softmax_gradient_tampering.studies.launch.runner import RunnerOptions, check_arms, open_runner
from softmax_gradient_tampering.studies.launch.torchrun import TorchrunPool, train_command
from softmax_gradient_tampering.studies.plan.plan import State
from softmax_gradient_tampering.studies.plan.plan_file import read_plan
from softmax_gradient_tampering.studies.results import claims
from softmax_gradient_tampering.studies.results.collect import collect
from softmax_gradient_tampering.studies.results.study_folder import open_study
from softmax_gradient_tampering.training.records.run_files import read_summary
from tests.faults.processes import has_ended
from tests.studies.studies import (
    TRAINING,
    InProcess,
    launch,
    plan_of,
    result_of,
    states,
    study_of,
)

WORDS = ("--alphas", "1", "0.5", "--seeds", "2")


def test_every_cell_is_trained_once_and_again_only_what_is_missing() -> None:
    study = study_of(*WORDS)
    assert states(study) == ["missing"] * 4
    runner = InProcess()
    work = launch(study, runner)
    assert runner.started == [cell.id for cell in study.plan.cells]
    assert work.done == set(runner.started)
    assert states(study) == ["finished"] * 4
    assert list(study.cells_path.glob("*.lock")) == []
    for cell in study.plan.cells:
        files = {path.name for path in study.cell_path(cell).iterdir()}
        assert {"args.yaml", "summary.csv", "result.json", "predictions.npz"} <= files

    shutil.rmtree(study.cell_path(study.plan.cells[1]))
    (study.cell_path(study.plan.cells[2]) / "result.json").unlink()
    again = InProcess()
    launch(study, again)
    assert again.started == [cell.id for cell in study.plan.cells[1:3]]
    assert states(study) == ["finished"] * 4
    # The third had its checkpoint still: it went on from there.
    assert result_of(study, study.plan.cells[2])["resumes"] == 1

    larger, further = study_of("--alphas", "1", "0.5", "--seeds", "3"), InProcess()
    launch(larger, further)
    assert further.started == [cell.id for cell in larger.plan.cells if cell.seed == 2]


def test_a_finished_cell_keeps_one_checkpoint_unless_asked() -> None:
    study = study_of(*WORDS, training=(*TRAINING, "--epochs", "3"))
    Driver(study, InProcess(), StudyProgress(is_silent=True), keeps_checkpoints=True).run()
    for cell in study.plan.cells:
        assert len(list(study.cell_path(cell).glob("*.pth.tar"))) > 1
    shutil.rmtree(study.path)
    study = study_of(*WORDS, training=(*TRAINING, "--epochs", "3"))
    launch(study)
    for cell in study.plan.cells:
        assert [path.name for path in study.cell_path(cell).glob("*.pth.tar")] == ["last.pth.tar"]
    assert states(study) == ["finished"] * 4


@pytest.mark.parametrize("keeps", [False, True])
def test_checkpoints_of_a_program_that_was_killed_after_a_runs_end_are_removed(keeps: bool) -> None:
    study = study_of(*WORDS, training=(*TRAINING, "--epochs", "3"))
    Driver(study, InProcess(), StudyProgress(is_silent=True), keeps_checkpoints=True).run()
    killed, edited, at_work, _ = study.plan.cells
    for cell in (killed, edited):
        study.lock_path(cell).write_text("{}")
        os.utime(study.lock_path(cell), (0, 0))  # nobody has refreshed it
    (study.cell_path(edited) / "args.yaml").write_text("lr: 7\n")
    assert claims.claim(study.lock_path(at_work))
    before = {cell: len(list(study.cell_path(cell).glob("*.pth.tar"))) for cell in study.plan.cells}

    Driver(study, InProcess(), StudyProgress(is_silent=True), keeps).run()
    after = {cell: len(list(study.cell_path(cell).glob("*.pth.tar"))) for cell in study.plan.cells}
    assert after == before | ({} if keeps else {killed: 1})
    assert (study.cell_path(killed) / "last.pth.tar").exists()
    assert not study.lock_path(killed).exists()
    assert study.lock_path(at_work).exists()


def test_checkpoints_stay_where_a_finished_run_is_trained_on() -> None:
    study = study_of(*WORDS, training=(*TRAINING, "--epochs", "3"))
    Driver(study, InProcess(), StudyProgress(is_silent=True), keeps_checkpoints=True).run()
    first, second = study.plan.cells[:2]
    (study.cell_path(first) / "result.json").unlink()
    names = [sorted(study.cell_path(cell).iterdir()) for cell in (first, second)]
    study.prune_checkpoints(first)
    program = f"""
import sys, time
from pathlib import Path
from softmax_gradient_tampering.files.lock import FolderLock
lock = FolderLock(Path({str(study.cell_path(second))!r}))
print(flush=True)
sys.stdin.read()
lock.release()
"""
    words = [sys.executable, "-c", program]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline()
        study.prune_checkpoints(second)
        other.communicate()
    assert [sorted(study.cell_path(cell).iterdir()) for cell in (first, second)] == names


def test_files_that_cannot_be_removed_end_no_study(monkeypatch: pytest.MonkeyPatch) -> None:
    def unlink(path: Any, **options: Any) -> None:
        if Path(path).name in ("checkpoint-1.pth.tar", "model_best.pth.tar", "failure.json"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        original(path, **options)

    study, original = study_of(*WORDS), os.unlink
    monkeypatch.setattr(os, "unlink", unlink)
    launch(study, InProcess(fails={study.plan.cells[0].id: 1}))
    assert states(study) == ["finished"] * 4


def test_a_study_whose_program_was_killed_over_its_plan_can_be_begun_again() -> None:
    folder = Path("studies/small")
    (folder / "cells").mkdir(parents=True)
    for name in (".plan.json.17", "..plan.json.17.tmp"):
        (folder / name).write_text("{")
    assert states(study_of(*WORDS)) == ["missing"] * 4
    (folder / "plan.json").unlink()
    (folder / "mine").touch()
    with pytest.raises(UserError, match="holds files, and no study"):
        study_of(*WORDS)


def test_arms_of_one_seed_are_pairs() -> None:
    study = study_of(*WORDS)
    launch(study)
    first: dict[tuple[str, int], Any] = {}
    for cell in study.plan.cells:
        row = read_summary(study.cell_path(cell) / "summary.csv")[0]
        first[cell.arm, cell.seed] = row["train_loss"]
    assert len(set(first.values())) == 4
    difference = abs(first["alpha-1", 0] - first["alpha-0.5", 0])
    assert difference < abs(first["alpha-1", 0] - first["alpha-1", 1])


def test_a_failed_cell_is_retried_once_and_the_others_go_on() -> None:
    study = study_of(*WORDS)
    once, always = study.plan.cells[0], study.plan.cells[1]
    runner = InProcess({once.id: 1, always.id: 9})
    work = launch(study, runner)
    assert runner.started.count(once.id) == runner.started.count(always.id) == 2
    assert study.read(once).state == "finished"
    assert not (study.cell_path(once) / "failure.json").exists()
    assert work.given_up == {always.id: "the disk is full"}
    failure = json.loads((study.cell_path(always) / "failure.json").read_text())
    assert (failure["attempts"], failure["error"]) == (2, "the disk is full")
    assert states(study) == ["finished", "failed", "finished", "finished"]
    # A later command tries it once more.
    later = InProcess()
    launch(study, later)
    assert later.started == [always.id]
    assert states(study) == ["finished"] * 4


def test_a_run_whose_numbers_go_wrong_has_diverged_and_one_that_is_killed_has_failed() -> None:
    study = study_of("--alphas", "1", "0.5", "--seeds", "1", training=(*TRAINING, "--lr", "1e30"))
    diverging, killed = study.plan.cells
    runner = InProcess({killed.id: 9})
    work = launch(study, runner)
    assert states(study) == ["diverged", "failed"]
    # What diverged is a result, and would diverge again; what was killed is tried once more.
    assert runner.started == [diverging.id, killed.id, killed.id]
    assert (work.done, set(work.given_up)) == ({diverging.id}, {killed.id})
    later = InProcess({killed.id: 9})
    launch(study, later)
    assert later.started == [killed.id]
    assert "the loss" in study.read(study.plan.cells[0]).reason
    assert [each.state for each in collect(study.path).cells] == ["diverged", "failed"]


def test_a_cell_whose_files_were_edited_is_neither_counted_nor_overwritten() -> None:
    study = study_of(*WORDS)
    launch(study)
    args, summary, foreign = (study.cell_path(cell) for cell in study.plan.cells[:3])
    text = (args / "args.yaml").read_text()
    (args / "args.yaml").write_text(text.replace("lr: 0.02", "lr: 0.5"))
    text = (summary / "summary.csv").read_text()
    (summary / "summary.csv").write_text(text.replace(text.splitlines()[1], "1" + "," * 17))
    (foreign / "result.json").write_text("{")
    assert states(study) == ["invalid", "invalid", "invalid", "finished"]
    before = {path: path.read_bytes() for path in study.path.rglob("*") if path.is_file()}
    runner = InProcess()
    work = launch(study, runner)
    assert runner.started == []
    assert list(work.invalid.values()) == [
        "args.yaml has lr: 0.5, the plan 0.02",
        "train_loss of summary.csv and of result.json differ",
        "result.json cannot be read (Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1))",
    ]
    after = {path: path.read_bytes() for path in study.path.rglob("*") if path.is_file()}
    assert after == before


def test_a_finished_cell_of_other_predictions_or_rows_is_invalid() -> None:
    study = study_of("--alphas", "1", "0.5", "--seeds", "2", training=(*TRAINING, "--epochs", "3"))
    launch(study)
    cut, swapped, edited, whole = (study.cell_path(cell) for cell in study.plan.cells)
    (cut / "predictions.npz").write_bytes((cut / "predictions.npz").read_bytes()[:2000])
    with np.load(whole / "predictions.npz") as arrays:
        np.savez(swapped / "predictions.npz", logits=-arrays["logits"], labels=arrays["labels"])
    head, first, *rest = (edited / "summary.csv").read_text().splitlines(keepends=True)
    values = first.split(",")
    (edited / "summary.csv").write_text("".join([head, ",".join(["1", "0.1", *values[2:]]), *rest]))
    assert states(study) == ["invalid", "invalid", "invalid", "finished"]
    reasons = [study.read(cell).reason for cell in study.plan.cells]
    assert reasons[0].startswith("predictions.npz cannot be read")
    assert reasons[1].startswith("predictions.npz is right in ")
    assert reasons[2] == "summary.csv is not the one that result.json was written with"


def test_a_failure_file_that_cannot_be_read_counts_no_attempts() -> None:
    study = study_of("--alphas", "1", "--seeds", "1")
    (cell,) = study.plan.cells
    for text in ("garbage", "[]", '{"attempts": "many"}'):
        study.cell_path(cell).mkdir(parents=True, exist_ok=True)
        (study.cell_path(cell) / "failure.json").write_text(text)
        record = study.read(cell)
        assert (record.state, record.reason) == ("failed", "failure.json cannot be read")
        assert study.attempts(cell) == 0
    launch(study)
    assert states(study) == ["finished"]


TUNED = (
    *("--alphas", "1", "0.5", "--seeds", "2", "--controls", "tuned"),
    *("--grid", "lr=1e-6,0.05", "--tuning-seeds", "2", "--holdout", "0.3"),
)


def test_the_tuned_arm_takes_the_settings_that_are_best_on_the_hold_out() -> None:
    study = study_of(*TUNED)
    work = launch(study)
    plan = read_plan(study.path / "plan.json")
    tuned = plan.arm("tuned")
    assert tuned.overrides == {"modify_softmax": 1.0, "lr": 0.05}
    assert tuned.selection is not None
    assert tuned.selection["chosen"] == {"lr": 0.05}
    for entry, name in zip(tuned.selection["table"], tuned.selected_from or (), strict=True):
        cells = [cell for cell in plan.cells if cell.arm == name]
        tops = [result_of(study, cell)["final"]["eval_top1"] for cell in cells]
        assert entry["n"] == 2
        assert entry["mean_top1"] == pytest.approx(sum(tops) / 2)
    cells = [cell for cell in plan.cells if cell.arm == "tuned"]
    assert [cell.seed for cell in cells] == [0, 1]
    assert {cell.id for cell in plan.cells} == work.done
    # The tuned arm trains on the whole training set, and none of the tuning saw the test set.
    assert plan.cell_config(cells[0]).holdout == 0
    tuning = [cell for cell in plan.cells if cell.arm.startswith("tuning")]
    assert {plan.cell_config(cell).holdout for cell in tuning} == {0.3}
    # Planned again, it is still the same study.
    again = InProcess()
    launch(study_of(*TUNED), again)
    assert again.started == []


def test_a_point_of_the_grid_without_all_its_runs_is_not_chosen() -> None:
    study = study_of(*TUNED)
    (best,) = {c.id for c in study.plan.cells if c.arm == "tuning-lr-0.05" and c.seed == 1}
    launch(study, InProcess({best: 2}))
    tuned = study.plan.arm("tuned")
    assert tuned.selection is not None
    assert tuned.selection["chosen"] == {"lr": 1e-6}
    assert [entry["n"] for entry in tuned.selection["table"]] == [2, 1]


def test_a_point_of_the_grid_that_diverges_is_not_waited_for_and_not_chosen() -> None:
    words = ("--alphas", "1", "0.5", "--seeds", "1", "--controls", "tuned")
    study = study_of(*words, "--grid", "lr=1e30,0.05", "--tuning-seeds", "1", "--holdout", "0.3")
    runner = InProcess()
    work = launch(study, runner)
    work.raise_for_failures()
    assert len(runner.started) == len(set(runner.started)) == 5
    assert study.plan.arm("tuned").overrides["lr"] == 0.05


def test_without_any_point_the_other_arms_are_run_all_the_same() -> None:
    study = study_of(*TUNED)
    fails = {cell.id: 2 for cell in study.plan.cells if cell.arm.startswith("tuning")}
    work = launch(study, InProcess(fails))
    assert "no point of the grid has all its runs" in work.selection_error
    assert study.plan.arm("tuned").is_waiting
    assert len(work.done) == 4


def test_a_cell_claimed_by_another_process_is_left_to_it() -> None:
    study = study_of(*WORDS)
    theirs = study.plan.cells[0]
    assert claims.claim(study.lock_path(theirs))
    assert study.read(theirs).state == "running"
    runner = InProcess()
    thread = threading.Thread(target=lambda: launch(study, runner))
    thread.start()
    other = open_study(study.path)
    while states(other).count(State.FINISHED) < 3:
        time.sleep(0.01)
    assert thread.is_alive()
    assert theirs.id not in runner.started
    claims.release(study.lock_path(theirs))  # given up, unfinished
    thread.join(60)
    assert not thread.is_alive()
    assert runner.started[-1] == theirs.id


def test_a_claim_is_one_processs_until_it_is_released_or_stale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock = Path("cell.lock")
    assert not claims.is_held(lock)
    assert claims.claim(lock)
    assert not claims.claim(lock)
    owner = json.loads(lock.read_text())
    assert owner["pid"] == os.getpid()
    assert {"host", "time"} <= set(owner)
    claims.release(lock)
    assert claims.claim(lock)

    # A process of this machine that is no more.
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    lock.write_text(json.dumps(owner | {"pid": done.pid}))
    assert not claims.is_held(lock)
    assert claims.claim(lock)

    # One of another machine, or of a container: its heartbeat decides.
    for name in ("host", "namespace"):
        lock.write_text(json.dumps(owner | {"pid": done.pid, name: "elsewhere"}))
        assert claims.is_held(lock)
        old = time.time() - 2 * claims.STALE_S
        os.utime(lock, (old, old))
        assert not claims.is_held(lock)
        claims.refresh(lock)
        assert claims.is_held(lock)
        os.utime(lock, (old, old))
        assert claims.claim(lock)
    assert [path.name for path in Path().iterdir()] == ["cell.lock"]


def _claim_stale_locks(folder: str, number: int, start: object, names: list[str]) -> None:
    start.wait()  # type: ignore[attr-defined]
    for name in names:
        if claims.claim(Path(folder) / name):
            (Path(folder) / f"{name}-{number}").touch()
    time.sleep(2)  # alive, while the others look


def test_a_stale_lock_is_broken_by_one_of_many() -> None:
    names = [f"{number}.lock" for number in range(40)]
    old = time.time() - 2 * claims.STALE_S
    for name in names:
        Path(name).write_text('{"host": "elsewhere", "pid": 1}')
        os.utime(name, (old, old))
    context = multiprocessing.get_context("fork")
    start = context.Barrier(4)
    processes = [
        context.Process(target=_claim_stale_locks, args=(str(Path.cwd()), number, start, names))
        for number in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    for name in names:
        assert len(list(Path().glob(f"{name}-*"))) == 1


@pytest.mark.parametrize(
    ("words", "training", "message"),
    [
        (("--controls", "equivalent"), ("--clip-grad", "1"), "equivalent-0.5: .*--clip-grad"),
        ((), ("--model", "resnt18"), "alpha-1: .*no such model"),
        ((), ("--smoothing", "2"), "alpha-1: --smoothing 2.0: must be from 0 to 1"),
    ],
)
def test_an_arm_that_cannot_be_run_is_refused_before_anything_is_written(
    words: tuple[str, ...], training: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_arms(plan_of(*WORDS, *words, training=training), InProcess())
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("processes", [1, 2])
def test_a_printed_command_trains_a_cell_in_its_own_folder(processes: int) -> None:
    from softmax_gradient_tampering.studies.launch.torchrun import prepare

    study = study_of(*WORDS, "--processes-per-run", str(processes))
    cell = study.plan.cells[1]
    prepare(study.cell_path(cell), study.plan.cell_config(cell))
    assert study.read(cell).state == "unfinished"
    command = train_command(study.cell_path(cell), processes, sys.executable)
    if processes == 1:
        assert command[:2] == ["sgt", "train"]
        assert main(command[1:]) == 0
    else:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert study.read(cell).state == "finished"
    assert sum(1 for _ in study.cells_path.iterdir()) == 1


def test_torchrun_jobs_train_and_report_their_failures() -> None:
    study = study_of(*WORDS, "--processes-per-run", "2")
    first, second = study.plan.cells[:2]
    options = RunnerOptions(num_jobs=2, processes_per_run=2)
    with open_runner(options) as runner:
        for cell, changes in ((first, {}), (second, {"smoothing": 2.0})):
            config = vars(study.plan.cell_config(cell)) | changes
            config |= {"output": str(study.cells_path), "experiment": cell.id, "resume": "auto"}
            runner.start(cell.id, type(study.plan.cell_config(cell))(**config))
        ended: dict[str, str] = {}
        while len(ended) < 2:
            ended |= {end.key: end.error for end in runner.wait(1.0)}
    assert ended[first.id] == ""
    assert ended[second.id] == "--smoothing 2.0: must be from 0 to 1"
    assert study.read(first).state == "finished"


def test_a_worker_that_dies_fails_its_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is stopped is ended with the pool, and one that died idle is replaced."""
    monkeypatch.setattr(pool, "_GRACE_S", 0.5)
    monkeypatch.setattr(pool, "_END_S", 60)
    study = study_of(*WORDS)
    cells = study.plan.cells[:3]
    with open_runner(RunnerOptions(num_jobs=1)) as runner:
        for number, cell in enumerate(cells):
            config = vars(study.plan.cell_config(cell))
            config |= {"output": str(study.cells_path), "experiment": cell.id}
            if number == 1:
                config |= {"epochs": 1000}
            if number == 2:  # its end has not been noticed yet
                worker = runner._workers[0]  # type: ignore[attr-defined]
                monkeypatch.setattr(worker._process, "is_alive", lambda: True)
            runner.start(cell.id, type(study.plan.cell_config(cell))(**config))
            if number == 1:
                while not list((study.cell_path(cell)).glob("*.pth.tar")):
                    assert runner.wait(0.05) == []
                os.kill(runner._workers[0]._process.pid, signal.SIGKILL)  # type: ignore
            ended: list[Ended] = []
            while not ended:
                ended = runner.wait(1.0)
            expected = "its worker process ended with exit code -9" if number == 1 else ""
            assert [(end.key, end.error) for end in ended] == [(cell.id, expected)]
        pid = runner._workers[0]._process.pid  # type: ignore[attr-defined]
        os.kill(pid, signal.SIGSTOP)
    assert has_ended(pid)


@pytest.mark.slow
def test_a_job_whose_folder_is_gone_has_failed_and_says_so(tmp_path: Path) -> None:
    jobs = TorchrunPool(1, 2)
    study = study_of(*WORDS, "--processes-per-run", "2")
    config = study.plan.cell_config(study.plan.cells[0])
    config = replace(config, output=str(tmp_path / "cells"), experiment="cell", smoothing=2.0)
    jobs.start("cell", config)
    shutil.rmtree(tmp_path / "cells")
    ended: list[Ended] = []
    while not ended:
        ended = jobs.wait(1.0)
    assert "its log cannot be read" in ended[0].error


def test_a_claim_on_a_full_disk_is_one_line_and_leaves_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(json, "dumps", fail)
    with pytest.raises(UserError, match=r"cannot be made .*No space left"):
        claims.claim(Path("cell.lock"))
    assert not Path("cell.lock").exists()


def test_a_claim_that_another_process_has_taken_over_is_not_released() -> None:
    lock = Path("cell.lock")
    assert claims.claim(lock)
    theirs = json.dumps(json.loads(lock.read_text()) | {"host": "elsewhere"})
    lock.write_text(theirs)  # after a pause so long that it was taken for stale
    claims.release(lock)
    assert lock.read_text() == theirs


def test_the_runs_of_the_tuned_arm_are_counted_before_its_settings_are_chosen() -> None:
    class Counted(StudyProgress):
        def update(self, num_done: int, num_all: int, news: str = "") -> None:
            totals.append((num_done, num_all))

    totals: list[tuple[int, int]] = []
    words = ("--controls", "tuned", "--grid", "lr=0.05,0.1", "--tuning-seeds", "1")
    study = study_of("--alphas", "1", "--seeds", "1", *words)
    Driver(study, InProcess(), Counted(is_silent=True)).run()
    assert {total for _, total in totals} == {4}
    assert totals[-1] == (4, 4)
