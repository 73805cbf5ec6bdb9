"""A report in the terminal: the first sentence and the table of the arms, as text or as JSON."""

import math
import textwrap
from collections.abc import Collection, Sequence
from typing import Any

from softmax_gradient_tampering.errors import as_printable
from softmax_gradient_tampering.studies.analysis.comparison import (
    ArmResult,
    Results,
    count_states,
)
from softmax_gradient_tampering.studies.analysis.measurements import ACCURACY
from softmax_gradient_tampering.studies.analysis.status import arm_statuses
from softmax_gradient_tampering.studies.plan.plan import Plan, State
from softmax_gradient_tampering.studies.report.verdict_sentence import verdict_sentence
from softmax_gradient_tampering.studies.report.wording import (
    caution_sentences,
    completeness_sentence,
    number,
    p_value,
)
from softmax_gradient_tampering.studies.results.study import Study

FORMAT = 1
_WIDTH = 96
_STATES = {
    "done": [State.FINISHED],
    "running": [State.RUNNING],
    "diverged": [State.DIVERGED],
    "failed": [State.FAILED],
    "missing": [State.MISSING, State.UNFINISHED],
    "invalid": [State.INVALID],
}


def results_text(results: Results) -> str:
    """The first sentence, the table of the arms, and how many runs they rest on."""
    parts = [textwrap.fill(as_printable(verdict_sentence(results)), _WIDTH)]
    parts += [
        textwrap.fill(as_printable(f"Warning: {warning}"), _WIDTH)
        for warning in caution_sentences(results)
    ]
    if results.study.kind == "study":
        rows = [_row(results, name) for name in results.arms]
        parts += [align([_head(results), *rows]), textwrap.fill(_foot(results), _WIDTH)]
        notes = (f"{note}." for note in results.study.notes)
        parts += [textwrap.fill(as_printable(note), _WIDTH) for note in notes]
    return "\n\n".join(parts)


def results_json(results: Results) -> dict[str, Any]:
    """What `results_text` says, for programs; null for a number that there is not."""
    study = results.study
    return {
        "format": FORMAT,
        "kind": study.kind,
        "name": study.name,
        "path": str(study.path),
        "verdict": verdict_sentence(results),
        "warnings": caution_sentences(results),
        "margin": results.margin,
        "metric": study.metric,
        "is_sequential": study.is_sequential,
        "states": {str(state): count for state, count in count_states(study).items()},
        "arms": [_entry(results, name) for name in results.arms],
        "notes": list(study.notes),
    }


def plan_text(plan: Plan) -> str:
    """A table of the arms of a plan, with their flags as --arm takes them."""
    rows = [("arm", "kind", "seeds", "flags")]
    for arm in plan.arms:
        flags = (f"{name.replace('_', '-')}={_flag(v)}" for name, v in arm.overrides.items())
        seeds = "-" if arm.is_waiting else str(len(plan.seeds_of(arm)))
        rows.append((arm.name, arm.kind, seeds, " ".join(flags)))
    return align(rows, left=(0, 1, 3))


def states_text(study: Study) -> str:
    """A table of the states of every arm's runs."""
    head = ("arm", "runs", *_STATES)
    rows = []
    for status in arm_statuses(study):
        counts = [sum(status.counts[state] for state in states) for states in _STATES.values()]
        cells = (str(status.num_cells), *(str(count or "-") for count in counts))
        if status.arm.is_waiting:
            cells = ("-", *["-"] * len(counts))
        rows.append((status.arm.name, *cells))
    waiting = [arm.name for arm in study.arms if arm.is_waiting]
    note = f"\n{', '.join(waiting)}: waiting for the tuning runs" if waiting else ""
    return align([head, *rows]) + note


def problems_text(study: Study) -> str:
    """A line for every run that diverged or failed, or whose files are not the plan's."""
    problems = (problem for status in arm_statuses(study) for problem in status.problems)
    return "\n".join(map(as_printable, problems))


def align(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """Rows of text in columns, some of them to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
    return "\n".join(map(as_printable, lines))


def _flag(value: Any) -> str:
    """A flag's value as it stands on a command line."""
    if isinstance(value, list):
        return ",".join(map(_flag, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _head(results: Results) -> tuple[str, ...]:
    is_accuracy = results.metric.key == ACCURACY
    metric = "test (%)" if is_accuracy else as_printable(f"{results.metric.label} (%)")
    return ("arm", "seeds", "diverged", metric, "less the baseline", "verdict", "p", "exact p")


def _row(results: Results, name: str) -> tuple[str, ...]:
    result = results.arms[name]
    seeds = f"{len(result.runs)}/{result.num_planned}"
    diverged = str(len(result.diverged) or "-")
    start = (name, seeds, diverged, _mean(result))
    comparison = result.comparison(results.baseline)
    if comparison is None or comparison.num_pairs == 0:
        is_reference = result.arm.kind == "baseline"
        said = "" if comparison is None or comparison.verdict is None else str(comparison.verdict)
        return (*start, "the baseline" if is_reference else "no pairs", said, "", "")
    half = comparison.half_width if comparison.has_interval else math.nan
    return (
        *start,
        _plus_minus(comparison.mean, half, sign=True),
        "control" if comparison.verdict is None else str(comparison.verdict),
        p_value(comparison.p_claim if comparison.verdict is None else comparison.p_holm),
        p_value(comparison.p_permutation),
    )


def _mean(result: ArmResult) -> str:
    spread = result.spreads.get(result.metric)
    if spread is None or not spread.num_values:
        return "-"
    return _plus_minus(*spread.interval)


def _plus_minus(mean: float, half: float, sign: bool = False) -> str:
    shown = number(mean, 2, sign)
    return shown if math.isnan(half) else f"{shown} ± {number(half, 2)}"


def _foot(results: Results) -> str:
    rule = (
        "p: 1 / E of a sequence, which holds however often one looks; exact p: of the sign-flip "
        "test, which takes the number of seeds as fixed."
        if results.study.is_sequential
        else "p: of the paired t test; exact p: of the sign-flip test."
    )
    return f"{completeness_sentence(results.study)} {rule} Holm's correction is in p."


def _entry(results: Results, name: str) -> dict[str, Any]:
    result = results.arms[name]
    spread = result.spreads.get(result.metric)
    entry: dict[str, Any] = {
        "arm": name,
        "kind": result.arm.kind,
        "alpha": result.arm.alpha,
        "planned": result.num_planned,
        "finished": len(result.runs),
        "diverged": len(result.diverged),
        "mean": None if spread is None else _number(spread.interval.mean),
    }
    for key, other in (("baseline", results.baseline), ("tuned", results.tuned)):
        comparison = result.comparison(other)
        if comparison is None:
            continue
        has_interval = comparison.has_interval
        entry[f"less_{key}"] = {
            "pairs": comparison.num_pairs,
            "difference": _number(comparison.mean),
            "low": comparison.interval.low if has_interval else None,
            "high": comparison.interval.high if has_interval else None,
            "verdict": comparison.verdict,
            "p": _number(comparison.p_claim),
            "p_holm": _number(comparison.p_holm),
            "p_sign": _number(comparison.p_sign),
            "p_permutation": _number(comparison.p_permutation),
            "seeds_to_settle": comparison.seeds,
        }
    return entry


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
