"""The demo: pairs of runs, a table, a picture, the figures behind them."""

import csv
from pathlib import Path

import pytest

from softmax_gradient_tampering.cli import main
from softmax_gradient_tampering.training.records import read_summary


def test_the_demo_shows_what_it_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--seeds", "2", "--epochs", "2"]) == 0
    output = capsys.readouterr().out
    (folder,) = Path("output/demo").iterdir()
    assert str(folder) in output
    assert (folder / "curves.png").stat().st_size > 10_000
    runs = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert runs == [f"alpha-{alpha}-seed-{seed}" for alpha in ("0.25", "1") for seed in (0, 1)]
    with (folder / "measurements.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["measurement"] == "test acc. (%)":
            run = folder / f"alpha-{row['alpha']}-seed-{row['seed']}"
            assert float(row["value"]) == read_summary(run / "summary.csv")[-1]["eval_top1"]
    names = {row["measurement"] for row in rows}
    assert all(name in output for name in names)
    assert len(rows) == 2 * 2 * len(names)


@pytest.mark.parametrize("words", [("--seeds", "0"), ("--epochs", "0")])
def test_a_wrong_number_is_one_line(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", *words]) == 2
    assert capsys.readouterr().err == f"sgt demo: error: {words[0]} 0: must be at least 1\n"
