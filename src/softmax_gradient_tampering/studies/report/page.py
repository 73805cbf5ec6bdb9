"""The report's page: what stands on it, in which order, and in which words."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from softmax_gradient_tampering.studies.analysis.comparison import Results
from softmax_gradient_tampering.studies.report import tables
from softmax_gradient_tampering.studies.report.figures import (
    alpha_figures,
    prediction_figures,
    training_figures,
)
from softmax_gradient_tampering.studies.report.figures.figure_block import FigureBlock
from softmax_gradient_tampering.studies.report.figures.svg import swatch
from softmax_gradient_tampering.studies.report.markup import Markup, document, element, join
from softmax_gradient_tampering.studies.report.verdict_sentence import verdict_sentence
from softmax_gradient_tampering.studies.report.wording import (
    agreement_sentence,
    arm_sentence,
    completeness_sentence,
    plural,
)

METHOD = (
    "Tampering at alpha replaces the probabilities p in the gradient of the cross-entropy by "
    "softmax(alpha z), and reports the ordinary loss. At a fixed alpha that is, exactly, training "
    "on cross_entropy(alpha z) / alpha. With SGD, and with a linear layer as the head, it is also "
    "exactly ordinary training at other settings: the head with initialisation × alpha, learning "
    "rate × alpha and weight decay / alpha; everything else with learning rate / alpha and weight "
    "decay × alpha. Then z_ordinary = alpha z_tampered after every step.",
    "So a gain of tampering is a gain of those settings. Two controls say what it is worth. "
    "Equivalent: ordinary training at those settings must give the same predictions; where it "
    "does not, something is wrong. Tuned: the baseline with its own learning rate and weight "
    "decay, chosen on held-out training data; a gain that this one has as well needs no tampering.",
)
PAIRS = (
    "Runs of one seed share split, initial weights, order and augmentation, so arms are compared "
    "seed by seed."
)
FIXED = (
    "The seeds were fixed in one plan. The interval is Student's t of the differences; beside its "
    "test stand the exact sign test and the sign-flip permutation test, which assume less and need "
    "more seeds. Helps and hurts: the corrected p of the t test and the p of the permutation test "
    "are below 0.05. Suggests: that of the t test alone is."
)
SEQUENTIAL = (
    "Seeds are added to this study as its results come in. Its interval is that of a confidence "
    "sequence of the differences, its p is 1 / E of their e-value: for normal differences both "
    "hold however often one looks and whenever one stops. Beside them stand the exact sign test "
    "and the sign-flip permutation test, which take the number of seeds as fixed. Helps and hurts: "
    "the corrected 1 / E is below 0.05."
)
VERDICTS = (
    "Holm's correction is over the tampered and scheduled arms. Diverges: more of its runs "
    "diverged than of the reference's; differences are those of the survivors. No difference: the "
    "95 % interval lies within ±{margin:g} points. Else inconclusive."
)
LIMITS = (
    "The intervals are over seeds: over initial weights, order and augmentation, on one split of "
    "one data set. They do not say how the result carries over to other data or models.",
    "Accuracy is that of the last epoch, on the set that was evaluated after every epoch. No epoch "
    "was chosen by it; if the settings were, the numbers flatter every arm alike or the one that "
    "they were chosen for.",
    "The number of seeds that would settle a comparison takes mean and spread as known. At that "
    "number the odds are about even; twice as many give about four in five.",
)
LIMITS_FIXED = (
    "The t interval takes the differences as roughly normal. With few seeds that cannot be "
    "checked; where the t test and the permutation test disagree, believe the more cautious one.",
    "Looking at a study while it runs and stopping when the verdict pleases makes its p values "
    "too small. Seeds that are added turn it into a sequence, which allows for that.",
)
LIMITS_SEQUENTIAL = (
    "The sequence promises what it does of normal differences. Of skewed ones it says helps or "
    "hurts too often: where there is no effect in 12 to 13 % of studies, in place of 5 %, if the "
    "differences are centred exponential ones and 100 seeds are watched. The sign test and the "
    "permutation test beside it assume less, and take the number of seeds as fixed.",
)


def build_page(results: Results, files: Sequence[Path], after_part: Callable[[], None]) -> str:
    """The whole HTML file.

    Args:
        results: what it reports.
        files: of the numbers, named at the end.
        after_part: called after every figure.
    """
    figures, problems = draw_figures(results, after_part)
    body = join(
        _opening(results),
        _result_section(results, figures.pop("differences", None)),
        _section("Reading this", *(element("p", text) for text in _method(results))),
        _section("Training", *_taken(figures, "curves", "alpha", "logits", "loss-norm", "filters")),
        _section("Calibration", *_taken(figures, "reliability"),
                 tables.calibration_table(results)),
        _section("Mistakes", *_taken(figures, "pairs")),
        _section("Every measurement", tables.measurement_table(results)),
        _cells_section(results, problems),
        _reproduction_section(results),
        _limits_section(results),
        _files_section(files),
    )  # fmt: skip
    return document(f"{results.study.name}: softmax gradient tampering", body)


def draw_figures(
    results: Results, after_figure: Callable[[], None]
) -> tuple[dict[str, FigureBlock], list[str]]:
    """All figures that the study has data for, by key, and what could not be read."""
    blocks: list[FigureBlock | None] = []
    for draw in FIGURES:
        blocks.append(draw(results))
        after_figure()
    norms, problems = training_figures.filter_norms_figure(results)
    after_figure()
    return {block.key: block for block in [*blocks, norms] if block is not None}, problems


FIGURES = (
    alpha_figures.differences_figure,
    training_figures.curves_figure,
    alpha_figures.accuracy_figure,
    alpha_figures.logits_figure,
    alpha_figures.loss_norm_figure,
    prediction_figures.reliability_figure,
    prediction_figures.pairs_figure,
)
NUM_FIGURES = len(FIGURES) + 1


def figure(block: FigureBlock) -> Markup:
    """A figure as an element of the page."""
    legend = None
    if block.legend:
        items = [
            element("li", swatch(style, f"{block.key}-key{number}"), element("span", label))
            for number, (style, label) in enumerate(block.legend)
        ]
        legend = element("ul", *items, class_="legend")
    panels = [element("div", Markup(panel), class_="panel") for panel in block.panels]
    kind = "panels small" if block.is_small else "panels"
    return element(
        "figure",
        element("h3", block.title),
        legend,
        element("div", *panels, class_=f"{kind} single" if len(panels) == 1 else kind),
        element("figcaption", block.caption),
        id=block.key,
    )


def _opening(results: Results) -> Markup:
    study = results.study
    question = "Does softmax gradient tampering help here?" if study.kind == "study" else "A run"
    parts = [
        element("p", question, class_="kicker"),
        element("h1", study.name),
        element("p", verdict_sentence(results), id="verdict"),
    ]
    if study.kind == "study":
        seeds = len({record.cell.seed for record in study.cells})
        arms = len(results.arms)
        facts = f"{plural(arms, 'arm')}, {plural(seeds, 'seed')}. {completeness_sentence(study)}"
        parts.append(element("p", facts, class_="facts"))
    elif study.kind == "run" and study.cells[0].state != "finished":
        parts.append(
            element("p", "The run is not finished: it has no result.json.", class_="facts")
        )
    return element("header", *parts)


def _result_section(results: Results, differences: FigureBlock | None) -> Markup | None:
    if results.study.kind != "study":
        return None
    sentences = [
        element(
            "li", element("strong", result.arm.name), ": ", arm_sentence(comparison, results.margin)
        )
        for result in results.judged
        if (comparison := result.comparison(results.baseline)) is not None
    ]
    is_sampled = any(
        not comparison.is_exact
        for result in results.arms.values()
        for comparisons in result.against.values()
        for comparison in comparisons.values()
    )
    return _section(
        "Result",
        element("ul", *sentences, class_="verdicts") if sentences else None,
        tables.result_table(results),
        element("p", "* 100,000 sampled sign flips, in place of all.", class_="note")
        if is_sampled
        else None,
        tables.tuned_table(results),
        _equivalents(results),
        None if differences is None else figure(differences),
        tables.selection_table(results),
        element("p", _statistics(results), class_="note"),
    )


def _statistics(results: Results) -> str:
    """How the verdicts were reached."""
    rule = SEQUENTIAL if results.study.is_sequential else FIXED
    return f"{PAIRS} {rule} {VERDICTS.format(margin=results.margin)}"


def _equivalents(results: Results) -> Markup | None:
    """How nearly the equivalent arms coincide with the arms that they follow."""
    items = []
    for name, result in results.arms.items():
        if result.arm.kind != "equivalent":
            continue
        sentence = agreement_sentence(results, name)
        missing = "no pair of finished runs with predictions to compare yet"
        items.append(element("li", element("strong", name), ": ", sentence or missing, "."))
    if not items:
        return None
    intro = "Do the equivalent ordinary trainings coincide with the tampered ones?"
    return join(element("h3", intro), element("ul", *items, class_="verdicts", id="agreement"))


def _method(results: Results) -> Sequence[str]:
    """What the method equals and, of a study, what its controls mean."""
    return METHOD if results.study.kind == "study" else METHOD[:1]


def _cells_section(results: Results, problems: Sequence[str]) -> Markup | None:
    notes = [*results.study.notes, *problems]
    content = tables.cell_table(results)
    if results.study.kind != "study" or (content is None and not notes):
        content = None
    listed = element("ul", *(element("li", note) for note in notes)) if notes else None
    return _section("Missing and failed", content, listed)


def _reproduction_section(results: Results) -> Markup | None:
    command = results.study.command
    line = element("pre", element("code", shlex.join(command))) if command else None
    return _section(
        "Configuration, environment, command",
        tables.configuration_table(results),
        tables.environment_table(results),
        join(element("h3", "The command that reproduces it"), line) if line else None,
    )


def _limits_section(results: Results) -> Markup | None:
    if results.study.kind != "study":
        return None
    own = LIMITS_SEQUENTIAL if results.study.is_sequential else LIMITS_FIXED
    items = (element("li", text) for text in (*own, *LIMITS))
    return _section("What this does not show", element("ul", *items))


def _files_section(files: Sequence[Path]) -> Markup | None:
    names = join(*(element("code", path.name) for path in files), separator=", ")
    return _section("The numbers", element("p", "All of them, beside this page: ", names, "."))


def _section(title: str, *content: Markup | None) -> Markup | None:
    """A section with a heading; None if there is nothing in it."""
    if all(part is None for part in content):
        return None
    return element("section", element("h2", title), *content)


def _taken(figures: dict[str, FigureBlock], *keys: str) -> list[Markup]:
    return [figure(figures[key]) for key in keys if key in figures]
