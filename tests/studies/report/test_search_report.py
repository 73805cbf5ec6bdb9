"""The report of a search, from made-up trials."""

import copy
import csv
import json
from pathlib import Path
from typing import Any

import pytest

from softmax_gradient_tampering.cli import main
from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.report.search import search_sentence
from softmax_gradient_tampering.studies.results.search_file import read_search

SEARCH: dict[str, Any] = {
    "format": 2,
    "seeds": [0, 1, 2],
    "holdout": 0.2,
    "judged_metric": "accuracy",
    "metric": "eval_top1 on the held-out part of the training set",
    "trials": [
        {"number": 0, "alpha": 1.0, "lr": 0.1, "mean": 90.5},
        {"number": 2, "alpha": 0.25, "lr": 0.05, "mean": 91.75},
        {"number": 1, "alpha": 0.5, "lr": 0.2, "mean": 88.0},
    ],
}
SENTENCE = (
    "The best of 3 trials is alpha 0.25 at lr 0.05: 91.75 % on the hold-out, the mean over 3 "
    "seeds; alpha 1, ordinary training, at lr 0.1, 90.50 %, was the first trial. It says what to "
    "compare, and not that tampering helps."
)


def write(content: dict[str, Any]) -> Path:
    path = Path("found")
    path.mkdir(exist_ok=True)
    (path / "search.json").write_text(json.dumps(content))
    return path


def test_a_search_has_a_page_a_text_and_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    path = write(SEARCH)
    assert main(["report", "found"]) == 0
    assert capsys.readouterr().out == "Report: found/report.html\n"
    page = (path / "report.html").read_text()
    assert SENTENCE in page
    assert page.index("91.75</td>") < page.index("90.50</td>") < page.index("88.00</td>")
    with (path / "report-trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mean"]) for row in rows] == [90.5, 88.0, 91.75]
    assert main(["report", "found", "--text"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(SENTENCE)
    assert text.splitlines()[-3].split() == ["2", "0.25", "0.05", "91.75"]
    assert main(["report", "found", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["kind"], content["verdict"]) == ("search", SENTENCE)
    assert content["best"] == {"number": 2, "alpha": 0.25, "lr": 0.05, "mean": 91.75}


def test_a_search_by_another_metric_names_it() -> None:
    path = write(SEARCH | {"judged_metric": "macro-f1"})
    assert "91.75 % (macro-f1) on the hold-out" in search_sentence(read_search(path))


def test_a_search_that_has_only_begun_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    write({name: value for name, value in SEARCH.items() if name not in ("trials", "metric")})
    assert main(["report", "found", "--text"]) == 0
    assert capsys.readouterr().out == (
        "Nothing can be said yet: no trial of this search is done.\n"
    )
    assert main(["report", "found"]) == 0


WRONG: tuple[Any, ...] = (None, True, "x", -1, [], {}, float("nan"), float("inf"), 10**400)


def test_no_value_of_a_search_is_trusted() -> None:
    ways: list[tuple[Any, ...]] = [(name,) for name in SEARCH]
    ways += [("trials", 0), *(("trials", 0, name) for name in SEARCH["trials"][0])]
    refused: list[str] = []
    for way in ways:
        for wrong in WRONG:
            content: Any = copy.deepcopy(SEARCH)
            inner = content
            for key in way[:-1]:
                inner = inner[key]
            inner[way[-1]] = wrong
            try:
                read_search(write(content))
            except UserError as error:
                refused.append(str(error))
    assert len(refused) > 5 * len(ways)
    assert all(line.startswith("found/search.json: ") and "\n" not in line for line in refused)
    (Path("found") / "search.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        read_search(Path("found"))
