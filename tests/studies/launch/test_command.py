"""`sgt study` as a user meets it: run, status, commands, search, the demo."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from softmax_gradient_tampering.cli import main
from softmax_gradient_tampering.studies.launch.cluster import RunCommand, slurm_script
from softmax_gradient_tampering.studies.report import report
from softmax_gradient_tampering.studies.results.study_folder import open_study
from softmax_gradient_tampering.training.measure.classes import read_counts
from tests.studies.studies import TRAINING, InProcess, launch, result_of, states, study_of

STUDY = (
    *("study", "run", "--name", "small", "--output", "studies", "--alphas", "1", "0.5"),
    *("--seeds", "2", "--controls", "equivalent", "--jobs", "2"),
)


def test_one_command_trains_a_study_and_again_does_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*STUDY, "--", *TRAINING]) == 0
    output = capsys.readouterr().out
    assert "[6/6]" in output
    assert "Study:   studies/small" in output
    study = open_study(Path("studies/small"))
    assert states(study) == ["finished"] * 6
    # At a power of two, the control is the tampered run.
    for seed in (0, 1):
        logits = {}
        for cell in study.plan.cells:
            if cell.seed == seed:
                with np.load(study.cell_path(cell) / "predictions.npz") as file:
                    logits[cell.arm] = file["logits"]
        assert (logits["equivalent-0.5"] == np.float32(0.5) * logits["alpha-0.5"]).all()
        assert not np.array_equal(logits["alpha-1"], logits["alpha-0.5"])

    before = {path: path.stat().st_mtime_ns for path in study.path.rglob("*")}
    assert main([*STUDY, "--", *TRAINING]) == 0
    assert {path: path.stat().st_mtime_ns for path in study.path.rglob("*")} == before
    assert "[" not in capsys.readouterr().out
    assert main(["study", "status", "studies/small"]) == 0
    status = capsys.readouterr().out
    assert status.startswith("Inconclusive: alpha-0.5 with ")
    assert ["alpha-1", "2", "2", *"-----"] in [line.split() for line in status.splitlines()]
    assert main(["report", "studies/small", "--text"]) == 0
    assert status.startswith(capsys.readouterr().out)
    for words in (("study", "status"), ("report", "--json")):
        assert main([*words, "studies/small", *(["--json"] * ("status" in words))]) == 0
        content = json.loads(capsys.readouterr().out)
        assert content["verdict"].startswith("Inconclusive: alpha-0.5")
        assert content["states"] == {"finished": 6}
        assert [arm["finished"] for arm in content["arms"]] == [2, 2, 2]
    assert main(["report", "studies/small", "--text", "--output", "a.html"]) == 2
    assert "--text writes no file" in capsys.readouterr().err
    assert list(study.path.glob("report*")) == []


@pytest.mark.parametrize(
    ("how", "jobs"),
    [
        *((signal.SIGINT, "1"), (signal.SIGTERM, "1"), (signal.SIGKILL, "2")),
        pytest.param(signal.SIGHUP, "1", marks=pytest.mark.slow),
    ],
)
def test_a_study_that_is_ended_goes_on_where_it_was(how: signal.Signals, jobs: str) -> None:
    words = [*STUDY, "--jobs", jobs, "--", *TRAINING, "--epochs", "20"]
    # A shell's child in the background ignores Ctrl-C, and so would its own.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from softmax_gradient_tampering.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    cells = Path("studies/small/cells")
    while not list(cells.glob("*/last.pth.tar")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(how)
    output, error = process.communicate(timeout=60)
    expected = {signal.SIGINT: 130, signal.SIGKILL: -9}
    assert process.returncode == expected.get(how, 143)
    assert error == ""
    assert ("the same command goes on" in output) == (how != signal.SIGKILL)
    study = open_study(Path("studies/small"))
    if how == signal.SIGKILL:  # its workers see it, and leave
        deadline = time.monotonic() + 60
        while _processes_of(Path.cwd()) and time.monotonic() < deadline:
            time.sleep(0.1)
    else:
        assert list(cells.glob("*.lock")) == []
    assert _processes_of(Path.cwd()) == []
    assert set(states(study)) <= {"missing", "unfinished", "finished"}
    assert "finished" not in states(study)[-1:]
    launch(study)
    assert states(study) == ["finished"] * 6
    assert max(result_of(study, cell)["resumes"] for cell in study.plan.cells) == 1


def _processes_of(folder: Path) -> list[str]:
    """The spawned processes that stand in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_text()
            if (path / "cwd").readlink() == folder and "spawn_main" in words:
                found.append(path.name)
        except OSError:
            continue
    return found


@pytest.mark.usefixtures("in_process")
def test_a_plan_starts_nothing_and_is_then_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "plan", *STUDY[2:], "--", *TRAINING]) == 0
    assert "6 runs planned, none started" in capsys.readouterr().out
    study = open_study(Path("studies/small"))
    assert states(study) == ["missing"] * 6
    assert study.plan.command[:3] == ("sgt", "study", "run")
    assert main(["study", "plan", *STUDY[2:], "--", *TRAINING, "--clip-grad", "1"]) == 2
    assert main([*STUDY, "--", *TRAINING]) == 0
    assert states(open_study(study.path)) == ["finished"] * 6


@pytest.mark.usefixtures("in_process")
def test_a_mistake_in_an_arm_is_one_line_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*STUDY, "--", *TRAINING, "--clip-grad", "1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sgt study: error: equivalent-0.5: --equivalent-to 0.5 does not hold")
    assert error.count("\n") == 1
    assert not Path("studies").exists()


def test_the_table_says_what_became_of_every_arm(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--alphas", "1", "0.5", "--seeds", "2", "--controls", "tuned", "--grid", "lr=0.1")
    study = study_of(*words)
    first, second, third = [cell for cell in study.plan.cells if "tuning" not in cell.arm][:3]
    assert main(["study", "status", "studies/small"]) == 0
    assert "tuned: waiting for the tuning runs" in capsys.readouterr().out
    fails = dict.fromkeys((cell.id for cell in study.plan.cells if "tuning" in cell.arm), 9)
    launch(study, InProcess({first.id: 2, **fails}))
    args = study.cell_path(second) / "args.yaml"
    args.write_text(args.read_text().replace("seed: 0", "seed: 7"))
    (study.cell_path(third) / "result.json").unlink()
    assert main(["study", "status", "studies/small"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("") :][-10:] == [
        "arm            runs  done  running  diverged  failed  missing  invalid",
        "alpha-1           2     -        -         -       1        1        -",
        "alpha-0.5         2     1        -         -       -        -        1",
        "tuned             -     -        -         -       -        -        -",
        "tuning-lr-0.1     2     -        -         -       2        -        -",
        "tuned: waiting for the tuning runs",
        f"alpha-1 seed 0 ({first.id}): the disk is full (2 attempts)",
        f"alpha-0.5 seed 0 ({second.id}): args.yaml has seed: 7, the plan 0",
        *(
            f"tuning-lr-0.1 seed {cell.seed} ({cell.id}): the disk is full (2 attempts)"
            for cell in study.plan.cells[:2]
        ),
    ]
    assert lines[0] == "Nothing can be compared: no run of the baseline, alpha 1, is finished."


def test_commands_are_of_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    study = study_of("--alphas", "1", "0.5", "--seeds", "2")
    launch(study)
    missing = study.plan.cells[1:3]
    for cell in missing:
        for path in study.cell_path(cell).iterdir():
            path.unlink()
    assert main(["study", "commands", "studies/small"]) == 0
    lines = capsys.readouterr().out.splitlines()
    folder = "studies/small/cells"
    assert lines == [
        f"sgt train --config {folder}/{cell.id}/args.yaml --output {folder} "
        f"--experiment {cell.id} --resume auto"
        for cell in missing
    ]
    assert main(["study", "commands", "studies/small", "--slurm"]) == 0
    script = capsys.readouterr().out
    assert "#SBATCH --array=1-2\n" in script
    for number, line in enumerate(lines, 1):
        assert f"{number}) exec {line} ;;\n" in script
        assert main(line.split()[1:]) == 0
    capsys.readouterr()
    assert (
        main(["study", "commands", "studies/small"]) == 0
    )  # a script may ask until nothing is left
    output, error = capsys.readouterr()
    assert output == ""
    assert "every run is done" in error


def test_an_array_task_runs_its_own_command() -> None:
    lines = ("echo one", "echo 'two words'", "echo three")
    script = slurm_script("small", [RunCommand(line, "an arm, seed 0") for line in lines])
    Path("array.sh").write_text("\n".join(script))
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "2"}
    done = subprocess.run(["bash", "array.sh"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "two words\n")


def test_commands_wait_for_the_tuning_and_then_select(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--alphas", "1", "0.5", "--seeds", "1", "--controls", "tuned", "--grid", "lr=0.1,0.2")
    study_of(*words)
    assert main(["study", "commands", "studies/small"]) == 0
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 4
    assert "the tuned arm waits" in output.err
    for line in output.out.splitlines():
        assert main(line.split()[1:]) == 0
    capsys.readouterr()
    assert main(["study", "commands", "studies/small"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    study = open_study(Path("studies/small"))
    (tuned,) = (cell for cell in study.plan.cells if cell.arm == "tuned")
    assert f"--experiment {tuned.id} " in line


SEARCH = (
    *("study", "search", "--name", "found", "--output", "studies", "--seeds", "2"),
    *("--jobs", "2", "--holdout", "0.3"),
)


@pytest.mark.usefixtures("in_process")
def test_a_search_proposes_trains_on_the_hold_out_and_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("optuna")
    path = Path("studies/found/search.json")
    assert main([*SEARCH, "--trials", "2", "--", *TRAINING]) == 0
    assert "on the hold-out" in capsys.readouterr().out
    first = json.loads(path.read_text())
    baseline, proposed = first["trials"]
    assert (baseline["alpha"], baseline["lr"]) == (1.0, 0.02)
    assert 0.05 <= proposed["alpha"] <= 1
    assert 0.01 <= proposed["lr"] <= 0.5
    tops = [trial["mean"] for trial in first["trials"]]
    assert first["best"]["mean"] == max(tops)
    cells = sorted(Path("studies/found/cells").iterdir())
    assert len(cells) == 4
    assert all("holdout: 0.3\n" in (cell / "args.yaml").read_text() for cell in cells)
    by_trial: dict[str, list[float]] = {}
    for cell in cells:
        (line,) = (line for line in (cell / "args.yaml").read_text().splitlines()
                   if line.startswith("modify_softmax"))  # fmt: skip
        final = json.loads((cell / "result.json").read_text())["final"]
        by_trial.setdefault(line, []).append(final["eval_top1"])
    assert sorted(sum(v) / 2 for v in by_trial.values()) == pytest.approx(sorted(tops))

    # The same command finds its runs, proposes what it did, and goes on.
    before = {cell: (cell / "result.json").stat().st_mtime_ns for cell in cells}
    assert main([*SEARCH, "--trials", "3", "--", *TRAINING]) == 0
    again = json.loads(path.read_text())
    assert again["trials"][:2] == first["trials"]
    assert len(again["trials"]) == 3
    assert {cell: (cell / "result.json").stat().st_mtime_ns for cell in cells} == before


@pytest.mark.usefixtures("in_process")
def test_a_search_is_judged_by_the_metric_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna")
    words = [*SEARCH, "--trials", "1", "--metric"]
    assert main([*words, "macro-f1", "--", *TRAINING]) == 0
    assert "(macro-f1) on the hold-out" in capsys.readouterr().out
    (trial,) = json.loads(Path("studies/found/search.json").read_text())["trials"]
    results = [
        json.loads(path.read_text()) for path in Path("studies/found").glob("*/*/result.json")
    ]
    found = [read_counts(result["classes"]) for result in results]
    judged = [counts.macro_f1 for counts in found if counts is not None]
    assert trial["mean"] == pytest.approx(sum(judged) / len(judged))
    assert main([*words, "recall:0", "--", *TRAINING]) == 2
    assert "differs in its judged metric" in capsys.readouterr().err


@pytest.mark.usefixtures("in_process")
def test_a_search_keeps_its_trials_in_a_database() -> None:
    optuna = pytest.importorskip("optuna")
    words = [*SEARCH, "--storage", "sqlite:///trials.db"]
    assert main([*words, "--trials", "1", "--", *TRAINING]) == 0
    assert main([*words, "--trials", "2", "--", *TRAINING]) == 0
    study = optuna.load_study(study_name="found", storage="sqlite:///trials.db")
    assert [trial.number for trial in study.trials] == [0, 1]
    trials = json.loads(Path("studies/found/search.json").read_text())["trials"]
    assert [trial["mean"] for trial in trials] == [trial.value for trial in study.trials]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--trials 0", "--trials 0: must be at least 1"),
        ("--seeds 0", "--seeds 0: no seeds"),
        ("--alpha-range 1 0.5", "--alpha-range 1 0.5: must be above 0, the smaller one first"),
        ("--lr-range 0 1", "--lr-range 0 1: must be above 0"),
        ("--metric recal:0", "--metric recal:0: there are accuracy"),
        ("--metric recall:none", "--metric recall:none: "),
        ("--holdout 1", "--holdout 1: must be above 0 and below 1"),
        ("--storage nowhere://x", "--storage nowhere://x: "),
        ("--arm a:lr=1", "--arm: a search has no arms"),
        ("--alphas 1 0.5", "--alphas: a search has no arms"),
        ("-- --seed 3", "--seed after --: not in a study"),
        ("-- --lr x", "invalid float value: 'x'"),
    ],
)
def test_a_mistake_in_a_search_is_one_line(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    assert main([*SEARCH, *words.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("studies").exists()


@pytest.mark.usefixtures("in_process")
def test_another_search_of_one_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna")
    Path("studies/found").mkdir(parents=True)
    Path("studies/found/letter.txt").write_text("dear")
    assert main([*SEARCH, "--trials", "1", "--", *TRAINING]) == 2
    assert "holds files, and no search" in capsys.readouterr().err
    Path("studies/found/letter.txt").unlink()
    assert main([*SEARCH, "--trials", "1", "--", *TRAINING]) == 0
    before = Path("studies/found/search.json").read_bytes()
    assert main([*SEARCH, "--trials", "1", "--seeds", "3", "--", *TRAINING]) == 2
    assert "another search of that name, which differs in its seeds" in capsys.readouterr().err
    assert Path("studies/found/search.json").read_bytes() == before


def test_help_and_unknown_actions(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["run", "--help"], ["status", "--help"], ["search", "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(["study", *words])
        assert caught.value.code == (0 if words else 2)
    assert main(["study", "rnu"]) == 2
    assert main(["study", "status", "nowhere"]) == 2
    output = capsys.readouterr()
    assert "sgt study run --name NAME [options] -- [training flags]" in output.out
    assert "unknown action 'rnu'" in output.err
    assert "nowhere: no study there" in output.err


@pytest.mark.usefixtures("in_process")
def test_the_demo_is_a_study_with_its_controls_and_its_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reported = []

    def write_report(path: Path) -> Path:
        reported.append(path)
        return path / "report.html"

    monkeypatch.setattr(report, "write_report", write_report)
    assert main(["demo", "--seeds", "1", "--epochs", "1"]) == 0
    (path,) = reported
    assert path == Path("output/demo/digits-1-seeds-1-epochs")
    output = capsys.readouterr().out
    assert f"Report:  {path}/report.html" in output
    assert "Inconclusive" in output.split("Report: ")[1]
    assert output.rstrip().endswith("correction is in p.")
    study = open_study(path)
    assert set(states(study)) == {"finished"}
    assert [arm.name for arm in study.plan.arms if arm.kind != "tuning"] == [
        *("alpha-1", "alpha-0.5", "alpha-0.25", "alpha-0.1"),
        *("equivalent-0.5", "equivalent-0.25", "equivalent-0.1", "tuned"),
    ]
    assert main(["demo", "--seeds", "1", "--epochs", "1"]) == 0  # nothing is missing


def test_the_whole_demo_has_110_runs() -> None:
    from softmax_gradient_tampering.commands.demo import NUM_EPOCHS, NUM_SEEDS, study_words
    from softmax_gradient_tampering.studies.plan.request import parse_run

    plan = parse_run(study_words(NUM_SEEDS, NUM_EPOCHS, "output")).plan
    assert len(plan.with_selection("tuned", {"chosen": {"lr": 0.1}}).unique_cells()) == 110
    assert plan.config["epochs"] == 40


@pytest.mark.parametrize("words", [("--seeds", "0"), ("--epochs", "0")])
def test_a_wrong_number_for_the_demo_is_one_line(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", *words]) == 2
    assert capsys.readouterr().err == f"sgt demo: error: {words[0]} 0: must be at least 1\n"
