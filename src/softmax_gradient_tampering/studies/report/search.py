"""The report of a search: what was best on the hold-out, and every trial."""

import csv
import io
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.files.whole import write_together
from softmax_gradient_tampering.studies.plan.plan import ACCURACY
from softmax_gradient_tampering.studies.report.numbers.trackers import Tracked
from softmax_gradient_tampering.studies.report.rendering import render
from softmax_gradient_tampering.studies.report.tables.table import Column, Row, Table, numeric
from softmax_gradient_tampering.studies.report.text import align
from softmax_gradient_tampering.studies.report.wording import number, plural
from softmax_gradient_tampering.studies.results.search_file import SearchRecord, Trial

FORMAT = 1
_HEAD = ("trial", "alpha", "lr", "mean (%)")


def search_sentence(search: SearchRecord) -> str:
    """What a search has found, in a sentence."""
    best = search.best
    if best is None:
        return "Nothing can be said yet: no trial of this search is done."
    first = search.trials[0]
    beside = f"; {_settings(first)}, {number(first.mean, 2)} %, was the first trial"
    return (
        f"The best of {plural(len(search.trials), 'trial')} is {_settings(best)}: "
        f"{number(best.mean, 2)} %{_of(search)} on the hold-out, the mean over "
        f"{plural(search.num_seeds, 'seed')}{beside * (best != first)}. It says what to compare, "
        "and not that tampering helps."
    )


def search_text(search: SearchRecord) -> str:
    """The sentence, and a table of the trials, the best first."""
    if not search.trials:
        return search_sentence(search)
    return f"{search_sentence(search)}\n\n{align([_HEAD, *map(_cells, _ranked(search))])}"


def search_json(search: SearchRecord) -> dict[str, Any]:
    """What `search_text` says, for programs."""
    best = search.best
    return {
        "format": FORMAT,
        "kind": "search",
        "name": search.path.resolve().name,
        "path": str(search.path),
        "verdict": search_sentence(search),
        "best": None if best is None else vars(best),
        "trials": [vars(trial) for trial in search.trials],
    }


def write_search_report(search: SearchRecord, output: Path) -> Tracked:
    """Write the page of a search, and its trials as CSV beside it.

    Returns:
        What a tracker may show of it.

    Raises:
        UserError: one of them cannot be written.
    """
    trials = output.with_name(f"{output.stem}-trials.csv")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("number", "alpha", "lr", "mean"))
    writer.writerows(tuple(vars(trial).values()) for trial in search.trials)
    write_together({trials: [buffer.getvalue()], output: [_page(search, trials.name)]})
    tables = {"trials": [vars(trial) for trial in search.trials]}
    return Tracked(search.path.resolve().name, search_sentence(search), tables, (), output)


def _page(search: SearchRecord, trials: str) -> str:
    rows = []
    for trial in _ranked(search):
        label, *cells = _cells(trial)
        rows.append(Row(label, list(map(numeric, cells))))
    caption = (
        f"Mean of {search.metric or 'the accuracy'} over {plural(search.num_seeds, 'seed')}, the "
        f"best trial first; {search.holdout:.0%} of the training set are held out."
    )
    return render(
        "search.html",
        name=search.path.resolve().name,
        verdict=search_sentence(search),
        trials=Table("trials", caption, list(map(Column, _HEAD)), rows),
        file=trials,
    )


def _cells(trial: Trial) -> tuple[str, ...]:
    return (str(trial.number), f"{trial.alpha:g}", f"{trial.lr:g}", number(trial.mean, 2))


def _of(search: SearchRecord) -> str:
    """What is judged, where it is not the accuracy."""
    return "" if search.judged_metric == ACCURACY else f" ({search.judged_metric})"


def _settings(trial: Trial) -> str:
    ordinary = ", ordinary training," if trial.alpha == 1 else ""
    return f"alpha {trial.alpha:g}{ordinary} at lr {trial.lr:g}"


def _ranked(search: SearchRecord) -> list[Trial]:
    return sorted(search.trials, key=lambda trial: -trial.mean)
