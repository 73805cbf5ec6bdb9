"""`sgt report --log`: a report in TensorBoard, and in Weights & Biases."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from softmax_gradient_tampering.cli import main
from softmax_gradient_tampering.studies.report.report import write_report
from tests.studies.synthetic import FakeArm, Size, write_study

ARMS = (
    FakeArm("alpha-1", "baseline"),
    FakeArm("a|b / c", "tampered", 0.25, effect=2.0),
)
SIZE = Size(num_epochs=3, num_samples=60, num_classes=3)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("tracked") / "study", ARMS, range(3), SIZE)


def read_events(folder: Path) -> Any:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder), size_guidance={"tensors": 0, "scalars": 0})
    events.Reload()
    return events


def text_of(events: Any, name: str) -> str:
    (event,) = events.Tensors(f"{name}/text_summary")
    return str(event.tensor_proto.string_val[0].decode())


def test_tensorboard_has_the_sentence_the_tables_and_the_curves(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    folder = tmp_path / "page-tensorboard"
    words = ["report", str(study), "--output", str(page), "--log", "tensorboard"]
    for _ in range(2):  # the second replaces the first
        assert main(words) == 0
    assert f"TensorBoard: tensorboard --logdir {folder}" in capsys.readouterr().out
    content = json.loads(page.with_suffix(".json").read_text())
    events = read_events(folder)
    assert text_of(events, "verdict") == content["verdict"]
    lines = text_of(events, "runs").splitlines()
    assert len(lines) == 2 + len(content["runs"])
    assert sum(r"a\|b / c" in line for line in lines) == 3
    assert sorted(each.name for each in folder.iterdir() if each.is_dir()) == [
        "00-alpha-1",
        "01-a_b_c",
    ]
    curve = read_events(folder / "01-a_b_c").Scalars("eval_top1")
    expected = [
        row["mean"]
        for row in content["curves"]
        if (row["arm"], row["column"]) == ("a|b / c", "eval_top1")
    ]
    assert [event.value for event in curve] == pytest.approx(expected)


class FakeWandB(SimpleNamespace):
    """What is asked of wandb, kept."""

    def __init__(self) -> None:
        super().__init__(logged={}, summary={}, is_finished=False)
        self.Table, self.Html = as_dicts, lambda text, inject: text

    def init(self, **options: Any) -> "FakeWandB":
        self.options = options
        return self

    def log(self, values: dict[str, Any]) -> None:
        self.logged |= values

    def finish(self) -> None:
        self.is_finished = True


def as_dicts(columns: list[str], data: list[list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in data]


def test_wandb_has_the_sentence_the_tables_and_the_page(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = FakeWandB()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    page = write_report(study, tmp_path / "page.html", log=("wandb",))
    assert wandb.is_finished
    content = json.loads(page.with_suffix(".json").read_text())
    assert wandb.options["name"] == content["name"]
    assert wandb.options["dir"] == str(tmp_path)
    assert wandb.summary == {"verdict": content["verdict"]}
    assert wandb.logged["report"] == page.read_text()
    runs = wandb.logged["runs"]
    assert [row["eval_top1"] for row in runs] == [row["eval_top1"] for row in content["runs"]]
    assert {row["state"] for row in runs} == {"finished"}


def test_what_is_not_installed_is_said_before_anything_is_written(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    page = tmp_path / "page.html"
    assert main(["report", str(study), "--output", str(page), "--log", "wandb"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not any(tmp_path.iterdir())
    assert main(["report", str(study), "--text", "--log", "wandb"]) == 2
    assert "--text sends nothing; leave --log out" in capsys.readouterr().err
