"""The report's files: the verdict, the tables, the numbers behind them."""

import csv
import json
import math
import re
import resource
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from softmax_gradient_tampering.cli import main
from softmax_gradient_tampering.studies.analysis.comparison import compare_arms
from softmax_gradient_tampering.studies.report.report import write_report
from softmax_gradient_tampering.studies.report.text import results_json, results_text
from softmax_gradient_tampering.studies.results.collect import collect, collect_tables
from softmax_gradient_tampering.training.config.arguments import parse_arguments
from softmax_gradient_tampering.training.records.run_files import read_summary, rows_hash
from softmax_gradient_tampering.training.run import run
from tests.studies.synthetic import (
    ARMS,
    BASELINE,
    FakeArm,
    Size,
    cell_folder,
    write_run,
    write_study,
)

SMALL = Size(num_epochs=4, num_samples=200, num_classes=4, num_filters=3)
FILES = ("arms.csv", "differences.csv", "runs.csv", "curves.csv")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("studies") / "study", ARMS, range(6), SMALL)


@pytest.fixture(scope="module")
def report(study: Path) -> Path:
    return write_report(study)


class Reader(HTMLParser):
    """Checks that elements nest, and keeps their attributes and the data cells' texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: dict[str, str] = {}
        self._source: str | None = None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._source = dict(attrs).get("data-source", self._source)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._source = None

    def handle_data(self, data: str) -> None:
        if self._source is not None:
            self.cells[self._source] = self.cells.get(self._source, "") + data


def table(report: Path, name: str) -> list[dict[str, str]]:
    with report.with_name(f"{report.stem}-{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def sources(report: Path) -> dict[str, str]:
    """The CSV files' values, by the names that the page's cells have for them."""
    found = {}
    for row in table(report, "arms"):
        found[f"arms|{row['arm']}|{row['measurement']}|mean"] = row["mean"]
    for row in table(report, "differences"):
        key = f"differences|{row['arm']}|{row['reference']}|{row['measurement']}"
        found |= {f"{key}|{name}": value for name, value in row.items()}
    return found


def as_shown(text: str) -> float | str:
    """The number of a cell: before its interval, with an ordinary minus sign."""
    number = re.match(r"[+−]?[\d.]+", text)
    return float(number[0].replace("−", "-")) if number else text


def test_the_text_of_a_study_reads_its_tables_alone(study: Path) -> None:
    by_tables = compare_arms(collect_tables(study), only_metric=True)
    whole = compare_arms(collect(study))
    assert results_text(by_tables) == results_text(whole)
    assert results_json(by_tables) == results_json(whole)


def test_the_tables_hold_the_numbers_of_the_csv_files(report: Path) -> None:
    cells, values = Reader(report.read_text()).cells, sources(report)
    assert len(cells) > 100
    for source, text in cells.items():
        value, shown = values[source], as_shown(text)
        if isinstance(shown, str):
            assert value == "" if shown == "–" else float(value) < 0.001, source
        else:
            digits = len(re.match(r"[+−]?\d+\.?(\d*)", text)[1])  # type: ignore[index]
            assert abs(float(value) - shown) <= 0.5001 * 10**-digits, source


def test_the_verdict_comes_first_and_says_what_the_tuned_baseline_gains(report: Path) -> None:
    content = json.loads(report.with_suffix(".json").read_text())
    assert content["verdict"].startswith(
        "Tampering helps against the baseline as configured: alpha-0.25 with +1."
    )
    assert "but against the tuned baseline" in content["verdict"]
    page = report.read_text()
    assert page.index(content["verdict"]) < page.index("<table")


def test_the_numbers_are_those_of_the_runs(study: Path, report: Path) -> None:
    runs = table(report, "runs")
    assert len(runs) == len(ARMS) * 6
    for row in runs:
        result = json.loads(
            (cell_folder(study, row["arm"], int(row["seed"])) / "result.json").read_text()
        )
        assert float(row["eval_top1"]) == result["final"]["eval_top1"]
        assert float(row["logit_norm"]) == result["final"]["logit_norm"]
    accuracies = {
        arm: [float(row["eval_top1"]) for row in runs if row["arm"] == arm]
        for arm in ("baseline", "alpha-0.25")
    }
    (row,) = (
        row
        for row in table(report, "differences")
        if (row["arm"], row["reference"], row["measurement"])
        == ("alpha-0.25", "baseline", "eval_top1")
    )
    expected = (sum(accuracies["alpha-0.25"]) - sum(accuracies["baseline"])) / 6
    assert float(row["difference"]) == pytest.approx(expected)
    assert row["verdict"] == "helps"


def test_tuning_arms_are_in_the_numbers_and_not_in_the_comparison(report: Path) -> None:
    assert "lr-0.05" in {row["arm"] for row in table(report, "arms")}
    assert "lr-0.05" not in {row["arm"] for row in table(report, "differences")}
    assert "lr 0.1 (chosen)" in report.read_text()


def test_the_same_study_gives_the_same_files(study: Path, report: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(study, tmp_path / "copy"))
    again = write_report(copy, tmp_path / "again" / "report.html")
    for name in ("report.html", "report.json", *(f"report-{file}" for file in FILES)):
        content = report.with_name(name).read_bytes()
        assert again.with_name(name).read_bytes() == content, name


def test_the_page_needs_nothing_from_elsewhere(report: Path) -> None:
    page = Reader(report.read_text())
    names = {name for _, attributes in page.tags for name in attributes}
    assert not names & {"src", "srcset", "action", "background", "style-src"}
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "img", "object", "base"}
    for _, attributes in page.tags:
        assert str(attributes.get("href", "#")).startswith("#")
    assert "@import" not in report.read_text()
    assert not re.search(r"url\((?!#)", report.read_text())


def test_bands_can_be_seen(report: Path) -> None:
    opacities = re.findall(r"opacity: ?([\d.]+)", report.read_text())
    assert opacities
    assert all(float(opacity) > 0.05 for opacity in opacities)


def test_every_figure_has_a_text_and_every_id_is_one(report: Path) -> None:
    page = Reader(report.read_text())
    panels = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(panels) > 15
    for attributes in panels:
        assert attributes.get("aria-hidden") == "true" or len(attributes["aria-label"] or "") > 30
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for name in ("href", "clip-path", "aria-labelledby"):
            target = re.sub(r"url\(#(.*)\)|#", r"\1", attributes.get(name) or "")
            assert not target or target in ids
    figures = {attributes.get("id") for tag, attributes in page.tags if tag == "figure"}
    assert figures == {
        *("differences", "tuned-differences", "curves-eval_top1", "curves-eval_loss"),
        *("alpha", "logits", "loss-norm", "filters", "reliability", "pairs"),
    }


def test_every_colour_of_the_figures_is_the_pages(report: Path) -> None:
    text = report.read_text()
    defined = set(re.findall(r"(--[\w-]+):", text))
    assert set(re.findall(r"var\((--[\w-]+)\)", text)) <= defined
    body = text[text.index("<body") :]
    assert not re.search(r"(?:fill|stroke):\s*(?!none|var\()[#\w]", body)


HOSTILE = '<script>alert("1")</script> & $x_1$ \u202e\x07'


def test_hostile_names_and_errors_stay_text(tmp_path: Path) -> None:
    arms = (
        FakeArm(f"base {HOSTILE}", "baseline"),
        FakeArm(f"a {HOSTILE}", "tampered", 0.5, 1.0),
        FakeArm("=cmd()", "equivalent", 0.5, 1.0),
    )
    names = (f"=c {HOSTILE}", HOSTILE, HOSTILE, "\udcff")
    size = replace(SMALL, num_classes=4, class_names=names)
    folder = write_study(tmp_path / "study", arms, range(3), size, name=f"</title>{HOSTILE}")
    broken = cell_folder(folder, arms[1].name, 0)
    (broken / "result.json").unlink()
    (broken / "failure.json").write_text(json.dumps({"attempts": 1, "error": HOSTILE}))
    report = write_report(folder)
    page = Reader(report.read_text())
    assert "script" not in {tag for tag, _ in page.tags}
    assert "\u202e" not in report.read_text()
    assert "\x07" not in report.read_text()
    assert "&lt;script&gt;" in report.read_text()
    assert {row["arm"] for row in table(report, "arms")} >= {"'=cmd()"}
    content = json.loads(report.with_suffix(".json").read_text())
    assert {row["arm"] for row in content["arms"]} == {arm.name for arm in arms}


def test_classes_are_named(tmp_path: Path) -> None:
    size = replace(SMALL, num_classes=3, class_names=("cat", "frog", "ship"))
    report = write_report(write_study(tmp_path / "study", ARMS[:3], range(3), size))
    page = report.read_text()
    assert re.search(r"(cat|frog|ship) → (cat|frog|ship)", page)
    assert not re.search(r"\d → \d", page)
    for arm in ("baseline", "alpha-0.5", "alpha-0.25"):
        assert f'data-source="arms|{arm}|recall:frog|mean"' in page
    assert ">67 (33.5 %)</td>" in page  # of 200 samples
    content = json.loads(report.with_suffix(".json").read_text())
    assert content["classes"] == ["cat", "frog", "ship"]
    for row in table(report, "runs"):
        recalls = [float(row[f"recall:{name}"]) for name in content["classes"]]
        assert float(row["balanced_accuracy"]) == pytest.approx(sum(recalls) / 3)
        assert float(row["lowest_recall"]) == min(recalls)
    for name in ("arms", "differences"):
        measured = {row["measurement"] for row in table(report, name)}
        assert measured > {"macro_f1", "balanced_accuracy", "lowest_recall", "recall:ship"}


def test_of_very_many_classes_the_lowest_recall_alone_is_shown(tmp_path: Path) -> None:
    size = replace(SMALL, num_samples=202, num_classes=101)
    report = write_report(write_study(tmp_path / "study", ARMS[:2], range(2), size))
    measured = {row["measurement"] for row in table(report, "arms")}
    assert {name for name in measured if "recall" in name} == {"lowest_recall"}


def test_cells_that_are_not_there_are_shown(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", ARMS[:3], range(3), SMALL)
    (cell_folder(folder, "alpha-0.25", 1) / "result.json").unlink()
    shutil.rmtree(cell_folder(folder, "baseline", 2))
    report = write_report(folder)
    page = report.read_text()
    assert "7 of 9 runs are finished" in page
    assert "1 unfinished, 1 missing" in page
    states = {(row["arm"], row["seed"]): row["state"] for row in table(report, "runs")}
    assert states["alpha-0.25", "1"] == "unfinished"
    assert states["baseline", "2"] == "missing"
    (row,) = (
        row
        for row in table(report, "differences")
        if (row["arm"], row["measurement"]) == ("alpha-0.25", "eval_top1")
    )
    assert row["pairs"] == "1"
    assert row["verdict"] == "inconclusive"


def test_studies_with_nothing_to_compare(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", ARMS[:2], range(2), SMALL)
    for cell in (folder / "cells").iterdir():
        (cell / "result.json").rename(cell / "kept.json")
    assert "no run of this study is finished" in write_report(folder).read_text()
    for arm, sentence in (
        ("alpha-0.5", "no run of the baseline, alpha 1, is finished"),
        ("baseline", "Nothing can be said of tampering"),
    ):
        for seed in range(2):
            cell = cell_folder(folder, arm, seed)
            (cell / "kept.json").rename(cell / "result.json")
        assert sentence in write_report(folder).read_text()
        for seed in range(2):
            cell = cell_folder(folder, arm, seed)
            (cell / "result.json").rename(cell / "kept.json")


def test_a_study_of_which_every_run_diverged_says_so(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", ARMS[:2], range(2), SMALL)
    failure = {"attempts": 1, "error": "epoch 1, batch 1, step 2: the loss is nan", "time": ""}
    for arm, said in (
        ("baseline", "no run of the baseline, alpha 1, is finished; 2 diverged."),
        ("alpha-0.5", "Nothing can be compared: every run diverged, 4 in all."),
    ):
        for seed in range(2):
            cell = cell_folder(folder, arm, seed)
            (cell / "result.json").unlink()
            (cell / "failure.json").write_text(json.dumps(failure))
        assert said in write_report(folder).read_text()
        text = results_text(compare_arms(collect_tables(folder), only_metric=True))
        row = next(line for line in text.splitlines() if line.startswith("baseline"))
        assert row.split(maxsplit=4) == ["baseline", "0/2", "2", "-", "the baseline"]


def test_a_study_of_the_baseline_alone_says_so(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", ARMS[:1], range(2), SMALL)
    sentence = "Nothing is compared: there is no arm beside the baseline, alpha 1."
    assert sentence in write_report(folder).read_text()


def test_a_diverged_run_is_counted_and_left_out_of_the_loss(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", (BASELINE, ARMS[1]), range(3), SMALL)
    cell = cell_folder(folder, "alpha-0.5", 0)
    summary, result = cell / "summary.csv", cell / "result.json"
    loss = summary.read_text().splitlines()[-1].split(",")[1]
    summary.write_text(summary.read_text().replace(loss, "nan"))
    content = json.loads(result.read_text())
    content["final"]["train_loss"] = None
    content["summary_hash"] = rows_hash(read_summary(summary))
    result.write_text(json.dumps(content))
    (row,) = (
        row
        for row in table(write_report(folder), "arms")
        if (row["arm"], row["measurement"]) == ("alpha-0.5", "train_loss")
    )
    assert (row["n"], row["not_finite"]) == ("2", "1")


def test_a_run_of_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--epochs 3 --modify-softmax 0.5 --logit-stats --output . --experiment one"
    run(parse_arguments(words.split()), is_silent=True)
    assert main(["report", "one"]) == 0
    assert "one/report.html" in capsys.readouterr().out
    page = (tmp_path / "one" / "report.html").read_text()
    assert "One run, with alpha 0.5" in page
    result = json.loads((tmp_path / "one" / "result.json").read_text())
    assert f"{result['final']['eval_top1']:.2f} % test accuracy after epoch 3" in page


def test_a_summary_alone(tmp_path: Path) -> None:
    path = tmp_path / "summary.csv"
    path.write_text(
        "epoch,train_loss,train_acc,eval_loss,eval_top1,eval_top5\n"
        "1,2.2,18.75,2.26,25.0,100.0\n2,2.1,31.25,2.17,50.0,81.25\n"
    )
    report = write_report(path)
    assert report == tmp_path / "report.html"
    assert "50.00 % test accuracy after epoch 2" in report.read_text()
    Reader(report.read_text())


def test_one_epoch_one_seed_one_class(tmp_path: Path) -> None:
    size = Size(num_epochs=1, num_samples=3, num_classes=2)
    study = write_study(tmp_path / "study", ARMS[:4], [7], size)
    for cell in (study / "cells").iterdir():
        np.savez(cell / "filter_norms.npz", epochs=np.array([1]), conv=np.ones((1, 4)))
    report = write_report(study)
    Reader(report.read_text())
    assert "Filter norms" not in report.read_text()  # one epoch is no line
    rows = table(report, "differences")
    assert {row["verdict"] for row in rows if row["measurement"] == "eval_top1"} == {"inconclusive"}
    assert all(row["low"] == "" for row in rows)


def test_a_page_of_many_arms_and_long_runs_stays_small(tmp_path: Path) -> None:
    arms = [BASELINE, *(FakeArm(f"alpha-{n}", "tampered", n / 44, 0.1) for n in range(1, 44))]
    folder = tmp_path / "study"
    write_study(folder, arms, [0], Size(num_epochs=400, num_samples=40, num_classes=4))
    report = write_report(folder)
    assert report.stat().st_size < 1_500_000
    assert "4 further arms are in the CSV files" in report.read_text()


def test_the_json_holds_no_number_that_json_lacks(report: Path) -> None:
    def refuse(name: str) -> float:
        raise AssertionError(name)

    json.loads(report.with_suffix(".json").read_text(), parse_constant=refuse)
    for row in table(report, "arms"):
        assert row["mean"] == "" or math.isfinite(float(row["mean"]))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["nowhere"], "nowhere: no such file or folder; give a study, a run or a summary.csv"),
        (["."], ".: neither a study (plan.json) nor a run folder (summary.csv)"),
        ([".", "--margin", "0"], "--margin 0: must be above 0 and finite, in points of accuracy"),
        ([".", "--margin", "inf"], "--margin inf: must be above 0 and finite"),
        ([".", "--margin", "x"], "'x' is not a number of points"),
        ([".", "--output", "x.txt"], "--output x.txt: must end in .html"),
        ([".", "--margn", "1"], "unrecognized argument --margn; did you mean --margin?"),
    ],
)
def test_a_wrong_word_is_one_line(
    words: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *words]) == 2
    captured = capsys.readouterr().err
    assert error in captured
    assert captured.startswith("sgt report: error: ")
    assert captured.count("\n") == 1


def test_nothing_is_written_where_the_page_cannot_be(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["report", str(study), "--output", "file/report.html"]) == 2
    assert "cannot be made" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_report_that_finds_no_room_leaves_the_old_one_whole(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    assert main(["report", str(study), "--output", str(page), "--margin", "0.5"]) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    room, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    capsys.readouterr()
    try:  # the JSON file, by far the largest, is written after the tables
        size = page.with_suffix(".json").stat().st_size // 2
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
        assert main(["report", str(study), "--output", str(page), "--margin", "3"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, most))
    error = capsys.readouterr().err
    assert "report.json: cannot be written" in error
    assert error.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert main(["report", str(study), "--output", str(page), "--margin", "3"]) == 0
    assert page.with_name("report-differences.csv").read_bytes() != before["report-differences.csv"]


def test_a_filter_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    write_run(folder, BASELINE, 0, SMALL)
    (folder / "filter_norms.npz").write_text("x")
    assert "filter_norms.npz cannot be read" in write_report(folder).read_text()


@pytest.mark.parametrize("num_seeds", [3, 6])
def test_a_study_that_has_grown_is_reported_as_a_sequence(num_seeds: int, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", ARMS[:3], range(num_seeds), SMALL)
    plan = json.loads((folder / "plan.json").read_text())
    settling = {"max_seeds": 9, "margin": 0.25}
    (folder / "plan.json").write_text(json.dumps({**plan, "stages": [2], "settling": settling}))
    report = write_report(folder)
    page = report.read_text()
    Reader(page)
    assert "Seeds were added to this study after its first 2" in page
    assert "Seeds are added to this study as its results come in" in page
    assert "differences within ±0.25 points count as none" in page
    rows = [row for row in table(report, "differences") if row["measurement"] == "eval_top1"]
    for row in rows:
        assert row["interval"] == "sequence"
        assert (row["p_t"] == "") == (float(row["sd"]) > 0)  # else that of the sign flips
        assert 0 < float(row["p_anytime"]) <= 1
        has_interval = num_seeds >= 5 and float(row["sd"]) > 0
        assert (row["low"] != "") == (row["high"] != "") == has_interval
        assert "inf" not in row.values()
    content = json.loads((tmp_path / "study" / "report.json").read_text())
    assert content["margin"] == 0.25


def test_where_there_is_no_spread_there_is_no_interval(study: Path, report: Path) -> None:
    rows = table(report, "differences")
    assert any(float(row["sd"]) == 0 for row in rows)
    for row in rows:
        assert (row["low"] == "") == (row["high"] == "") == (float(row["sd"]) == 0)
