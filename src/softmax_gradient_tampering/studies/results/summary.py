"""summary.csv, of ours or of the published program, as arrays over the evaluated epochs."""

import csv
import io
import math
from collections.abc import Sequence
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt

from softmax_gradient_tampering.training.records.run_files import COLUMNS, lines_hash

FILE_NAME = "summary.csv"
FloatArray = npt.NDArray[np.float64]


class Summary:
    """The table of a summary.csv. Numbers are made of its text when they are asked for.

    A header in the midst of it, which the published program writes where it resumes, is passed
    over. Where epochs were trained again after a resumption, the later rows count.

    Args:
        text: of the file.

    Raises:
        ValueError: it is not a summary, or has no rows.
    """

    def __init__(self, text: str) -> None:
        try:
            header, *lines = [line for line in csv.reader(io.StringIO(text, newline="")) if line]
        except csv.Error as error:
            raise ValueError(f"{FILE_NAME}: {error}") from error
        except ValueError:
            header, lines = [], []
        self._header = header
        self._lines = [line for line in lines if line != header]
        if not self._lines:
            raise ValueError(f"{FILE_NAME} has no rows: no epoch was evaluated")
        if not {"epoch", "eval_top1"} <= set(header):
            raise ValueError(f"{FILE_NAME} has no columns epoch and eval_top1")
        for line in self._lines:
            if len(line) > len(header):
                raise ValueError(
                    f"{FILE_NAME}: more values than columns: {', '.join(line[len(header) :]):.60}"
                )

    @cached_property
    def curves(self) -> dict[str, FloatArray]:
        """An array over the evaluated epochs by column, "epoch" among them.

        nan where a value is missing, inf where it is not a number, as the loss of a diverged
        run; no array where all are missing.

        Raises:
            ValueError: a value cannot be read, or a row has no epoch.
        """
        columns = {
            name: _numbers(texts) for name, *texts in zip_longest(self._header, *self._lines)
        }
        kept = _last_of_each_epoch(columns["epoch"])
        curves = {name: values[kept] for name, values in columns.items()}
        return {name: values for name, values in curves.items() if not np.isnan(values).all()}

    def final(self, column: str) -> float:
        """The value of the last evaluated epoch; nan where it was not measured."""
        line = self._lines[-1]
        values = dict(zip(self._header, line, strict=False))
        return _number(values.get(column, ""))

    @property
    def finals(self) -> dict[str, float]:
        """The values of the last evaluated epoch by column, of those that were measured."""
        values = zip(self._header, self._lines[-1], strict=False)
        return {name: _number(text) for name, text in values if text}

    def has_hash(self, recorded: Any) -> bool:
        """Whether the text is the one, number by number, that the program wrote under a hash."""
        is_ours = tuple(self._header) == COLUMNS
        is_whole = is_ours and all(len(line) == len(COLUMNS) for line in self._lines)
        return is_whole and lines_hash(self._lines) == recorded


def _numbers(texts: Sequence[str | None]) -> FloatArray:
    """Numbers of a column; see `_number`."""
    try:
        values = np.array([float(text or "nan") for text in texts])
    except ValueError as error:
        raise ValueError(f"{FILE_NAME}: {error}") from error
    is_nan = np.isnan(values)
    if is_nan.any():
        values[is_nan & np.array([bool(text) for text in texts])] = math.inf
    return values


def _number(text: str) -> float:
    """nan for a missing value, inf for one that is not a number."""
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError(f"{FILE_NAME}: {error}") from error
    return value if value == value else math.inf


def _last_of_each_epoch(epochs: FloatArray) -> Any:
    """The rows that no later one, of the same or an earlier epoch, has overtaken."""
    if not np.isfinite(epochs).all():
        raise ValueError(f"{FILE_NAME} has a row without an epoch")
    # A row stays if its epoch is below those of all rows after it.
    lowest_after = np.minimum.accumulate(epochs[::-1])[::-1]
    return np.append(epochs[:-1] < lowest_after[1:], True)
