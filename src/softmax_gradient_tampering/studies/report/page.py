"""The report's page: what its template shows."""

import shlex
from collections.abc import Callable, Sequence

from softmax_gradient_tampering.studies.analysis.comparison import Results
from softmax_gradient_tampering.studies.analysis.verdict import Verdict
from softmax_gradient_tampering.studies.report.decision import decision_lines
from softmax_gradient_tampering.studies.report.figures import (
    alpha_figures,
    forest,
    prediction_figures,
    training_figures,
)
from softmax_gradient_tampering.studies.report.figures.figure_block import FigureBlock
from softmax_gradient_tampering.studies.report.rendering import render
from softmax_gradient_tampering.studies.report.tables.classes import class_tables
from softmax_gradient_tampering.studies.report.tables.measurements import (
    calibration_table,
    measurement_tables,
)
from softmax_gradient_tampering.studies.report.tables.results import (
    result_table,
    selection_table,
    tuned_table,
)
from softmax_gradient_tampering.studies.report.tables.runs import (
    cell_table,
    configuration_tables,
    environment_table,
)
from softmax_gradient_tampering.studies.report.verdict_sentence import verdict_sentence
from softmax_gradient_tampering.studies.report.wording import (
    agreement_sentence,
    arm_sentence,
    caution_sentences,
    completeness_sentence,
    plural,
)

MAX_SENTENCES = 6  # of more arms they would be the table again


def build_page(results: Results, files: Sequence[str], after_figure: Callable[[], None]) -> str:
    """The whole HTML file.

    Args:
        results: what it reports.
        files: of the numbers, by their names, which stand at the end.
        after_figure: called after every figure.
    """
    study = results.study
    is_study = study.kind == "study"
    figures, problems = draw_figures(results, after_figure)
    return render(
        "page.html",
        name=study.name,
        question=_question(results),
        is_study=is_study,
        has_tampering=any(arm.is_tampered for arm in study.arms) or not is_study,
        is_sequential=study.is_sequential,
        margin=f"{results.margin:g}",
        verdict=verdict_sentence(results),
        warnings=caution_sentences(results),
        decision=decision_lines(results),
        forest=forest.forest(results, results.baseline, "differences"),
        tuned_forest=forest.forest(results, results.tuned, "tuned-differences"),
        facts=_facts(results),
        sentences=_sentences(results),
        is_sampled=_is_sampled(results),
        agreements=_agreements(results),
        figures=figures,
        result_table=result_table(results),
        tuned_table=tuned_table(results),
        selection_table=selection_table(results),
        calibration_table=calibration_table(results),
        class_tables=class_tables(results),
        measurement_tables=measurement_tables(results),
        cell_table=cell_table(results) if is_study else None,
        notes=[*study.notes, *problems],
        configuration_tables=configuration_tables(results),
        environment_table=environment_table(results),
        command=shlex.join(study.command),
        files=files,
    )


def draw_figures(
    results: Results, after_figure: Callable[[], None]
) -> tuple[dict[str, FigureBlock], list[str]]:
    """All figures that the study has data for, by key, and what could not be read."""
    blocks: list[FigureBlock | None] = [*training_figures.curves_figures(results)]
    after_figure()
    for draw in _FIGURES:
        blocks.append(draw(results))
        after_figure()
    norms, problems = training_figures.filter_norms_figure(results)
    after_figure()
    return {block.key: block for block in [*blocks, norms] if block is not None}, problems


_FIGURES = (
    alpha_figures.accuracy_figure,
    alpha_figures.logits_figure,
    alpha_figures.loss_norm_figure,
    prediction_figures.reliability_figure,
    prediction_figures.pairs_figure,
)
NUM_FIGURES = len(_FIGURES) + 2


def _question(results: Results) -> str:
    """What the page answers."""
    if results.study.kind != "study":
        return "A run"
    if all(arm.is_tampered for arm in results.study.arms if arm.is_judged):
        return "Does softmax gradient tampering help here?"
    return "Which of these trainings helps here?"


def _facts(results: Results) -> str:
    """How much the page rests on; empty where there is nothing to say."""
    study = results.study
    if study.kind == "study":
        seeds = len({record.cell.seed for record in study.cells})
        counts = f"{plural(len(results.arms), 'arm')}, {plural(seeds, 'seed')}"
        num_tuning = sum(result.num_planned for result in results.tuning.values())
        tuning = f", {plural(num_tuning, 'run')} to tune the baseline" * bool(num_tuning)
        return f"{counts}{tuning}. {completeness_sentence(study)}"
    if study.kind == "run" and study.cells[0].state != "finished":
        return "The run is not finished: it has no result.json."
    return ""


def _sentences(results: Results) -> list[tuple[str, str]]:
    """What can be said of a few judged arms by their names; of many, who has which verdict."""
    found = [
        (result.arm.name, comparison)
        for result in results.judged
        if (comparison := result.comparison(results.baseline)) is not None
    ]
    if len(found) <= MAX_SENTENCES:
        return [(name, arm_sentence(comparison, results.margin)) for name, comparison in found]
    names = {
        verdict: [name for name, comparison in found if comparison.verdict is verdict]
        for verdict in Verdict
    }
    return [
        (f"{verdict}, {len(named)} of {len(found)}", ", ".join(named))
        for verdict, named in names.items()
        if named
    ]


def _is_sampled(results: Results) -> bool:
    return any(
        not comparison.is_exact
        for result in results.arms.values()
        for comparisons in result.against.values()
        for comparison in comparisons.values()
    )


def _agreements(results: Results) -> list[tuple[str, str]]:
    """How nearly the equivalent arms coincide with the arms that they follow."""
    missing = "no pair of finished runs with predictions to compare yet"
    return [
        (name, agreement_sentence(results, name) or missing)
        for name, result in results.arms.items()
        if result.arm.kind == "equivalent"
    ]
