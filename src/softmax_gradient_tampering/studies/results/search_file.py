"""search.json: the trials of a search, read with every value checked."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.errors import UserError, first_line
from softmax_gradient_tampering.files.text import read_record
from softmax_gradient_tampering.files.untrusted import (
    COUNT,
    NUMBER,
    TEXT,
    Form,
    Kind,
    find_fault,
    is_number,
    list_of,
)

FILE_NAME = "search.json"
FORMAT = 2
_TRIAL: Form = {
    "number": COUNT,
    **dict.fromkeys(("alpha", "lr", "mean"), Kind("a finite number", lambda v: is_finite(v))),
}
_SEARCH: Form = {
    "format": Kind(f"{FORMAT}", lambda value: value == FORMAT),
    "seeds": list_of(COUNT),
    "holdout": NUMBER,
    "judged_metric": TEXT,
    "metric": TEXT,
    "trials": list_of(Kind("a mapping", lambda value: isinstance(value, Mapping))),
}


@dataclass(frozen=True)
class Trial:
    """Settings that were tried.

    Attributes:
        number: in the order in which they were proposed; 0 is ordinary training, where the
            ranges hold it.
        alpha, lr: that were tried.
        mean: of the metric (%) on the hold-out, over the seeds.
    """

    number: int
    alpha: float
    lr: float
    mean: float


@dataclass(frozen=True)
class SearchRecord:
    """What a search has found so far.

    Attributes:
        path: of its folder.
        num_seeds: of every trial.
        holdout: share of the training set that the trials were judged on.
        judged_metric: the metric by its name.
        metric: what `mean` is the mean of, in words.
        trials: in the order in which they were proposed.
    """

    path: Path
    num_seeds: int
    holdout: float
    judged_metric: str
    metric: str
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial | None:
        """The trial with the largest mean; None without any."""
        return max(self.trials, key=lambda trial: trial.mean, default=None)


def is_finite(value: Any) -> bool:
    """Whether a value is a number that is finite."""
    return is_number(value) and abs(value) < float("inf")


def read_search(path: Path) -> SearchRecord:
    """Read the search.json of a search's folder.

    Raises:
        UserError: it cannot be read, or is no search.
    """
    file = path / FILE_NAME
    try:
        loaded = json.loads(read_record(file))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read ({first_line(error)})") from error
    if isinstance(loaded, dict) and "trials" not in loaded:  # begun, and no trial is done
        loaded |= {"trials": [], "metric": ""}
    fault = find_fault(loaded, _SEARCH)
    if fault is None:
        faults = (
            find_fault(trial, _TRIAL, f"trials.{number}.")
            for number, trial in enumerate(loaded["trials"])
        )
        fault = next((found for found in faults if found), None)
    if fault is not None:
        raise UserError(f"{file}: not a search ({fault}); it was edited, or is another program's")
    trials = (
        Trial(each["number"], *(float(each[name]) for name in ("alpha", "lr", "mean")))
        for each in loaded["trials"]
    )
    return SearchRecord(
        path,
        len(loaded["seeds"]),
        float(loaded["holdout"]),
        loaded["judged_metric"],
        loaded["metric"],
        tuple(sorted(trials, key=lambda trial: trial.number)),
    )
