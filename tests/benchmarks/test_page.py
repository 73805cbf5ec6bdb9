"""The page of benchmarks: made of the committed files alone, and as committed."""

import csv
import sys
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
RESULTS = sorted((BENCHMARKS / "results").glob("*.csv"))


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The modules of benchmarks/, which is no package."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)
    import bars
    import timer
    import write_page

    yield SimpleNamespace(bars=bars, timer=timer, write_page=write_page)
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def row(programs: SimpleNamespace, **figures: str):
    where = {"device": "Abacus 2 cores", "threads": "2", "torch": "2.9", "date": "2026-01-02"}
    defaults = {"benchmark": "loss", "subject": "float32 7x5", "variant": "tampered"}
    return programs.timer.Row(**({**where, **defaults, "metric": "time", "unit": "ms"} | figures))


def some_rows(programs: SimpleNamespace, **where: str) -> list[Any]:
    time = {"p20": "1.9", "p50": "2.0", "p80": "2.2"}
    ratio = {"metric": "relative time", "unit": "1", "p20": "0.4", "p50": "0.5", "p80": "0.6"}
    peak = {"metric": "peak memory", "unit": "MiB"}
    error = {"metric": "largest error of the gradient", "unit": "ulp"}
    figures = [
        time,
        time | {"variant": "torch", "p50": "4.0"},
        {"variant": "compiled", "p50": "not measured"},
        ratio | {"ratio_to": "torch", "ratio": "0.5"},
        peak | {"p50": "3"},
        peak | {"variant": "torch", "p50": "6"},
        peak | {"variant": "gradient alone", "p50": "2"},
        error | {"p50": "0.75"},
    ]
    return [row(programs, **figure, **where) for figure in figures]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_result_files_have_the_schema(path: Path, programs: SimpleNamespace) -> None:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert reader.fieldnames == [field.name for field in fields(programs.timer.Row)]
    assert rows
    for found in rows:
        assert path.name.startswith(found["date"])
        assert path.name.endswith(f"-{found['benchmark']}.csv")
        for name in ("p20", "p50", "p80", "ratio"):
            if found[name] not in ("", "not measured") and found["unit"] != "text":
                float(found[name])
        assert (found["ratio_to"] == "") == (found["ratio"] == "")


def test_the_committed_page_is_what_the_committed_files_say(
    programs: SimpleNamespace, tmp_path: Path
) -> None:
    rows = programs.write_page.read_results(BENCHMARKS / "results")
    for written in programs.write_page.write_page(rows, tmp_path):
        committed = ROOT / "docs" / written.relative_to(tmp_path)
        assert written.read_text() == committed.read_text(), "run `make bench-page`"


def test_the_page_has_the_figures_and_what_is_missing(
    programs: SimpleNamespace, tmp_path: Path
) -> None:
    page, *pictures = programs.write_page.write_page(some_rows(programs), tmp_path)
    text = page.read_text()
    assert "| float32 7x5 | 0.50 (0.40 to 0.60) |" in text
    assert "| float32 7x5 | 1.50 | 3.00 |" in text  # peak memory by that of the gradient
    assert "| float32 7x5 | 2.00 (1.90 to 2.20) | 4.00 (1.90 to 2.20) | not measured |" in text
    assert "2 threads, torch 2.9" in text
    assert text.count("### GPU\n\nNot measured.") == 2  # neither benchmark has a GPU's file
    assert [picture.name for picture in pictures] == ["benchmark-loss-abacus-2-cores.svg"]
    ElementTree.parse(pictures[0])


def test_shapes_have_a_column_for_every_variant_and_number_of_threads(
    programs: SimpleNamespace, tmp_path: Path
) -> None:
    ratio = {"benchmark": "shapes", "metric": "relative time", "unit": "1", "ratio_to": "torch"}
    rows = [
        row(programs, **ratio, threads=threads, variant=variant, p50=figure, ratio=figure)
        for threads, variant, figure in (
            ("1", "before", "2.5"),
            ("1", "now", "0.5"),
            ("2", "now", "1"),
        )
    ]
    text = programs.write_page.write_page(rows, tmp_path)[0].read_text()
    assert "| | before, 1 thread | now, 1 thread | now, 2 threads |" in text
    assert "| float32 7x5 | 2.50 | 0.50 | 1.00 |" in text


def test_a_gpu_with_a_file_is_measured(programs: SimpleNamespace, tmp_path: Path) -> None:
    rows = some_rows(programs, device="NVIDIA Abacus")
    text = programs.write_page.write_page(rows, tmp_path)[0].read_text()
    assert "### NVIDIA Abacus" in text
    assert text.count("### GPU\n\nNot measured.") == 1  # from hidden states


def write_results(programs: SimpleNamespace, path: Path, rows: list[Any]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(programs.timer.Row)])
        writer.writeheader()
        writer.writerows(map(asdict, rows))


def test_of_a_device_the_latest_file_counts(programs: SimpleNamespace, tmp_path: Path) -> None:
    for name, date in (("b", "2026-01-02"), ("a", "2026-03-04"), ("c", "2026-02-03")):
        write_results(programs, tmp_path / f"{name}.csv", [row(programs, date=date, p50="1")])
    (found,) = programs.write_page.read_results(tmp_path)
    assert found.date == "2026-03-04"


def test_a_file_of_another_schema_is_refused(programs: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("benchmark,subject\nloss,7x5\n")
    with pytest.raises(SystemExit, match=r"old.csv has the columns \['benchmark', 'subject'\]"):
        programs.write_page.read_results(tmp_path)


def test_relative_times_and_memory_are_of_the_own_variant(programs: SimpleNamespace) -> None:
    seconds = {"ours": [1.0, 1.0, 3.0], "theirs": [2.0, 4.0, 4.0]}
    rows = programs.timer.time_rows("loss", "7x5", "ours", seconds, num_calls=10)
    assert [float(found.p50) for found in rows] == [100.0, 400.0, 0.5]  # ms, ms, 1
    rows = programs.timer.memory_rows("loss", "7x5", "ours", {"ours": 2**20, "theirs": 2**21})
    assert [(found.p50, found.ratio_to, found.ratio) for found in rows] == [
        ("1", "", ""),
        ("2", "ours", "2"),
    ]


def test_bars_longer_than_the_picture_are_cut(programs: SimpleNamespace) -> None:
    picture = programs.bars.draw_bars("A & B", {"x": {"one": 1.0, "far": 90.0}}, most=6.0)
    texts = [element.text for element in ElementTree.fromstring(picture).iter() if element.text]
    assert {"A & B", "1.00", "90.00"} <= set(texts)
    width = programs.bars.LEFT + programs.bars.WIDTH + programs.bars.RIGHT
    assert f'width="{width}"' in picture
