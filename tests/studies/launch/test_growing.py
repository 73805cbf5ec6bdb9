"""Arms that are added to a study: nothing is trained twice, and a mistake changes nothing."""

import json
from pathlib import Path

import pytest

from softmax_gradient_tampering.cli import main
from softmax_gradient_tampering.studies.launch import runner
from softmax_gradient_tampering.studies.results.study_folder import open_study
from tests.studies.studies import TRAINING, InProcess, states

STUDY = ("study", "run", "--name", "small", "--output", "studies", "--seeds", "2")
PATH = Path("studies/small")


@pytest.fixture
def runners(monkeypatch: pytest.MonkeyPatch) -> list[InProcess]:
    """The runners of the commands, which train in this process."""
    made: list[InProcess] = []

    def make(*_: object) -> InProcess:
        made.append(InProcess())
        return made[-1]

    monkeypatch.setattr(runner, "WorkerPool", make)
    return made


def results() -> dict[str, int]:
    """When each result.json of the study was written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in PATH.glob("cells/*/result.json")}


def test_a_study_is_grown_by_arms_and_trains_these_alone(
    runners: list[InProcess], capsys: pytest.CaptureFixture[str]
) -> None:
    arms: tuple[str, ...] = ("--arm", "smooth: smoothing=0.1")
    assert main([*STUDY, *arms, "--", *TRAINING]) == 0
    before = results()
    assert len(before) == 4
    arms += ("--arm", "mixed: mixup=0.2", "--alphas", "1", "0.5", "--controls", "equivalent")
    assert main([*STUDY, *arms, "--", *TRAINING]) == 0
    study = open_study(PATH)
    assert states(study) == ["finished"] * 10
    assert before.items() < results().items()
    # Tried beforehand, then trained: what is new, and nothing else.
    new = [cell.id for cell in study.plan.cells if cell.id not in before]
    assert runners[-1].started == ["alpha-0.5", "mixed", "equivalent-0.5", *new]
    output = capsys.readouterr().out
    assert "6 runs to do" in output
    assert "Added to this study after its first arms: alpha-0.5, mixed. Holm's" in output
    assert main([*STUDY, *arms, "--", *TRAINING]) == 0
    assert runners[-1].started == []
    assert main(["report", "studies/small"]) == 0
    page = (PATH / "report.html").read_text()
    assert "<h2>Notes</h2>" in page
    assert "Added to this study after its first arms: alpha-0.5, mixed." in page


def test_an_added_arm_that_cannot_be_run_changes_nothing(
    runners: list[InProcess], capsys: pytest.CaptureFixture[str]
) -> None:
    arms = ("--arm", "smooth: smoothing=0.1")
    assert main([*STUDY, *arms, "--", *TRAINING]) == 0
    before = (PATH / "plan.json").read_bytes()
    capsys.readouterr()
    for action in ("run", "plan"):
        wrong = (*arms, "--arm", "odd: opt=nosuchoptimizer")
        assert main(["study", action, *STUDY[2:], *wrong, "--", *TRAINING]) == 2
        error = capsys.readouterr().err
        assert error.startswith("sgt study: error: odd: ")
        assert error.count("\n") == 1
        assert (PATH / "plan.json").read_bytes() == before
    assert runners[-1].started == ["odd"]


@pytest.mark.usefixtures("runners")
def test_commands_status_and_report_know_arms(capsys: pytest.CaptureFixture[str]) -> None:
    arms = (
        *("--arm", "half: modify-softmax=0.5 smoothing=0.1", "--arm", "adam: opt=adamw lr=1e-3"),
        *("--baseline", "adam", "--controls", "equivalent"),
    )
    assert main(["study", "plan", *STUDY[2:], *arms, "--", *TRAINING]) == 0
    output = capsys.readouterr().out
    assert "6 runs planned, none started" in output
    assert output.splitlines()[:4] == [
        "arm              kind        seeds  flags",
        "half             tampered        2  modify-softmax=0.5 smoothing=0.1",
        "adam             baseline        2  modify-softmax=1 opt=adamw lr=0.001",
        "equivalent-half  equivalent      2  smoothing=0.1 modify-softmax=1 equivalent-to=0.5",
    ]
    assert main(["study", "commands", "studies/small", "--slurm"]) == 0
    script = capsys.readouterr().out
    assert script.count("sgt train --config") == 6
    assert script.count("# half, seed") == 2
    assert main([*STUDY, *arms, "--", *TRAINING]) == 0
    capsys.readouterr()
    assert main(["study", "status", "studies/small", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [(arm["arm"], arm["kind"]) for arm in content["arms"]] == [
        ("half", "tampered"),
        ("adam", "baseline"),
        ("equivalent-half", "equivalent"),
    ]
    assert main(["report", "studies/small"]) == 0
    page = (PATH / "report.html").read_text()
    assert "equivalent-half" in page
    assert "Does softmax gradient tampering help here?" in page


@pytest.mark.usefixtures("runners")
def test_a_page_without_tampering_does_not_ask_for_it() -> None:
    assert main([*STUDY, "--arm", "smooth: smoothing=0.1", "--", *TRAINING]) == 0
    assert main(["report", "studies/small"]) == 0
    page = (PATH / "report.html").read_text()
    assert "Which of these trainings helps here?" in page
    assert "softmax(alpha z), and reports" not in page
