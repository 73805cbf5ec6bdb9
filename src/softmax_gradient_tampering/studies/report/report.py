"""A study, a run folder or a summary.csv as one HTML file, and its numbers as CSV and JSON."""

from collections.abc import Callable, Sequence
from pathlib import Path

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.files.whole import write_together
from softmax_gradient_tampering.studies.analysis.comparison import compare_arms
from softmax_gradient_tampering.studies.report.numbers.curves import arm_curves
from softmax_gradient_tampering.studies.report.numbers.files import number_files
from softmax_gradient_tampering.studies.report.numbers.rows import tables_of
from softmax_gradient_tampering.studies.report.numbers.trackers import (
    Tracked,
    check_trackers,
    send_report,
)
from softmax_gradient_tampering.studies.report.page import NUM_FIGURES, build_page
from softmax_gradient_tampering.studies.report.printed import check_margin, is_search
from softmax_gradient_tampering.studies.report.search import write_search_report
from softmax_gradient_tampering.studies.report.verdict_sentence import verdict_sentence
from softmax_gradient_tampering.studies.results.collect import collect
from softmax_gradient_tampering.studies.results.search_file import read_search

Progress = Callable[[str, int, int], None]


def write_report(
    path: Path,
    output: Path | None = None,
    margin: float | None = None,
    progress: Progress | None = None,
    log: Sequence[str] = (),
) -> Path:
    """Write the report of a study, a search, a run folder or a summary.csv.

    The same input gives the same files, byte for byte. A report that is already there is
    replaced.

    Args:
        path: of the folder of a study, a search or a run, or of a summary.csv.
        output: the HTML file; report.html in the folder, or beside the summary.csv, when not
            given. Its CSV and JSON files stand beside it.
        margin: points of accuracy, above 0; smaller differences count as none. That of the
            study, or 0.5, when not given.
        progress: called with what is being done, steps done and steps in all.
        log: of trackers.TRACKERS, what the sentence, the tables, and the curves or the page are
            sent to as well.

    Returns:
        The path of the HTML file.

    Raises:
        UserError: the path is none of these, cannot be read, or nothing can be written; or what it
            is sent to is not installed.
    """
    check_margin(margin)
    check_trackers(log)
    output = output or (path.parent if path.is_file() else path) / "report.html"
    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output {output}: must end in .html")
    report = progress or _say_nothing
    if is_search(path):
        search = read_search(path)
        send_report(write_search_report(search, output), log)
        return output
    study = collect(path, lambda done, total: report("reading", done, total))
    report("comparing", 0, 1)
    results = compare_arms(study, margin)
    done = 0

    def after_figure() -> None:
        nonlocal done
        done += 1
        report("drawing", done, NUM_FIGURES)

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be made ({error})") from error
    verdict, tables, curves = verdict_sentence(results), tables_of(results), arm_curves(results)
    files = number_files(output.with_suffix(""), results, verdict, tables, curves)
    page = build_page(results, [path.name for path in files], after_figure)
    write_together({**files, output: [page]})
    send_report(Tracked(study.name, verdict, tables, curves, output), log)
    return output


def _say_nothing(_what: str, _done: int, _total: int) -> None:
    """Nobody watches."""
