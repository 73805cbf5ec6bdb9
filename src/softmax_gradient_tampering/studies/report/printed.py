"""A report in the terminal, of whatever a report can be of; nothing is drawn."""

import math
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.analysis.comparison import Results, compare_arms
from softmax_gradient_tampering.studies.plan.plan_file import FILE_NAME
from softmax_gradient_tampering.studies.report.search import search_json, search_text
from softmax_gradient_tampering.studies.report.text import results_json, results_text
from softmax_gradient_tampering.studies.results.collect import collect, collect_tables
from softmax_gradient_tampering.studies.results.search_file import FILE_NAME as SEARCH_NAME
from softmax_gradient_tampering.studies.results.search_file import read_search


def report_text(path: Path, margin: float | None = None) -> str:
    """The first sentence of a report and its table; nothing is written.

    Raises:
        UserError: as `write_report`.
    """
    if is_search(path):
        return search_text(read_search(path))
    return results_text(_read(path, margin))


def report_json(path: Path, margin: float | None = None) -> dict[str, Any]:
    """The same for programs.

    Raises:
        UserError: as `write_report`.
    """
    if is_search(path):
        return search_json(read_search(path))
    return results_json(_read(path, margin))


def _read(path: Path, margin: float | None) -> Results:
    check_margin(margin)
    is_study = (path / FILE_NAME).exists()
    study = collect_tables(path) if is_study else collect(path)
    return compare_arms(study, margin, only_metric=is_study)


def is_search(path: Path) -> bool:
    """Whether a folder is that of a search."""
    return path.is_dir() and not (path / FILE_NAME).exists() and (path / SEARCH_NAME).exists()


def check_margin(margin: float | None) -> None:
    """Refuse a margin that is none.

    Raises:
        UserError: it is not above 0, or not finite.
    """
    if margin is not None and not 0 < margin < math.inf:
        raise UserError(f"--margin {margin:g}: must be above 0 and finite, in points of accuracy")
