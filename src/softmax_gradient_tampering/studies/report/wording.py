"""What the numbers say, in sentences."""

import math
from collections.abc import Sequence

from softmax_gradient_tampering.studies.analysis.comparison import ArmResult, Results, count_states
from softmax_gradient_tampering.studies.analysis.measurements import ACCURACY
from softmax_gradient_tampering.studies.analysis.statistics import LEVEL
from softmax_gradient_tampering.studies.analysis.verdict import Comparison, Verdict
from softmax_gradient_tampering.studies.plan.plan import State
from softmax_gradient_tampering.studies.results.collect import Study

MINUS = "\u2212"


def number(value: float, digits: int, sign: bool = False) -> str:
    """A number as a reader sees it; a dash where there is none.

    >>> number(-0.126, 2), number(0.5, 1, sign=True), number(math.nan, 2)
    ('−0.13', '+0.5', '–')
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "not finite"
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    if float(text) == 0:
        text = text.replace("-", "+" if sign else "")
    return text.replace("-", MINUS)


def p_value(p: float) -> str:
    """A p value with three decimals, or that it is smaller.

    >>> p_value(0.0312), p_value(0.0001)
    ('0.031', '<0.001')
    """
    if math.isnan(p):
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "seed"), plural(10, "seed")
    ('1 seed', '10 seeds')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def verdict_sentence(results: Results) -> str:
    """The report's first sentence: does tampering help here?"""
    if results.study.kind != "study":
        return _single_sentence(results)
    if not any(result.runs for result in results.arms.values()):
        return "Nothing can be said yet: no run of this study is finished."
    if results.baseline is None:
        return "Nothing can be compared: no run of the baseline, alpha 1, is finished."
    if not results.judged:
        return "Nothing can be said of tampering: no run with it is finished."
    by_verdict = {verdict: _with_verdict(results, verdict) for verdict in Verdict}
    if by_verdict[Verdict.HELPS]:
        return _helps(results, by_verdict)
    if by_verdict[Verdict.HURTS]:
        return _hurts(results, by_verdict)
    if not by_verdict[Verdict.INCONCLUSIVE]:
        closest = max(results.judged, key=lambda r: abs(_against(results, r).mean))
        return (
            f"Tampering makes no difference larger than {results.margin:g} points here; "
            f"the largest is {_effect(results, closest)}."
        )
    return _inconclusive(results, by_verdict[Verdict.INCONCLUSIVE])


def arm_sentence(comparison: Comparison, margin: float) -> str:
    """An arm's verdict, and what it rests on."""
    if comparison.num_pairs == 0:
        return "no seed in common, so nothing can be said"
    effect = f"{number(comparison.mean, 2, sign=True)} points{_interval(comparison)}"
    if comparison.verdict is Verdict.NO_DIFFERENCE:
        return f"no difference larger than {margin:g} points: {effect}"
    if comparison.verdict is not Verdict.INCONCLUSIVE:
        is_small = abs(comparison.mean) < margin
        small = f", less than the margin of {margin:g} points" if is_small else ""
        return f"{comparison.verdict}: {effect}{small}{_doubt(comparison)}"
    return f"inconclusive: {effect}; {seeds_phrase(comparison)}"


def seeds_phrase(comparison: Comparison) -> str:
    """How many seeds would settle a comparison that is open."""
    if comparison.num_pairs < 2:
        return "one seed has no interval; it takes several to say anything"
    if comparison.seeds is None:
        return "more seeds than can be told would be needed"
    return f"about {comparison.seeds:,} seeds would settle it if mean and spread stayed as they are"


def completeness_sentence(study: Study) -> str:
    """How many cells the report rests on."""
    counts = count_states(study)
    finished = counts.pop(State.FINISHED, 0)
    if not counts:
        return f"All {len(study.cells)} cells are finished."
    rest = ", ".join(f"{count} {state}" for state, count in counts.items())
    return (
        f"{finished} of {len(study.cells)} cells are finished, and the numbers rest on those "
        f"alone; {rest}. The verdict may change."
    )


def agreement_sentence(results: Results, name: str) -> str | None:
    """How nearly an equivalent arm gave the tampered arm's predictions; None if not measured."""
    agreements = results.study.agreements.get(name)
    if not agreements:
        return None
    found = list(agreements.values())
    same = sum(agreement.num_same for agreement in found)
    samples = sum(agreement.num_samples for agreement in found)
    whole = sum(agreement.num_same == agreement.num_samples for agreement in found)
    worst = max(found, key=lambda a: a.deviation / (a.scale or 1))
    share = number(100 * same / samples, 3)
    return (
        f"{share} % of {samples:,} predicted classes are the same, all of them in {whole} of "
        f"{plural(len(found), 'seed')}; the logits differ from alpha z by at most "
        f"{worst.deviation:.2g}, where alpha z goes up to {worst.scale:.3g}"
    )


def _single_sentence(results: Results) -> str:
    (result,) = results.arms.values()
    ((_, run),) = result.runs.items()
    epoch = int(run.final("epoch"))
    alpha = f"alpha {result.arm.alpha:g}" if run.args else "an alpha that is not recorded"
    ordinary = ", which is ordinary training" if run.args and result.arm.alpha == 1 else ""
    return (
        f"One run, with {alpha}{ordinary}: {number(run.final(ACCURACY), 2)} % test accuracy "
        f"after epoch {epoch}. One run cannot say whether tampering helps."
    )


def _against(results: Results, result: ArmResult) -> Comparison:
    comparison = result.comparison(results.baseline)
    assert comparison is not None
    return comparison


def _doubt(comparison: Comparison) -> str:
    """That the permutation test does not bear the t test out, or cannot."""
    if comparison.p_permutation < LEVEL:
        return ""
    if 2.0 ** (1 - comparison.num_pairs) >= LEVEL:
        return "; too few seeds for the permutation test to bear it out"
    return f"; the permutation test does not bear it out, p = {p_value(comparison.p_permutation)}"


def _with_verdict(results: Results, verdict: Verdict) -> list[ArmResult]:
    """The arms of a verdict, the largest difference first, those without any last."""

    def size(result: ArmResult) -> float:
        comparison = _against(results, result)
        return abs(comparison.mean) if comparison.num_pairs else -1.0

    found = [r for r in results.judged if _against(results, r).verdict is verdict]
    return sorted(found, key=size, reverse=True)


def _interval(comparison: Comparison) -> str:
    if math.isnan(comparison.half_width):
        return f" ({plural(comparison.num_pairs, 'seed')})"
    low, high = (
        number(v, 2, sign=True) for v in (comparison.interval.low, comparison.interval.high)
    )
    return f" (95 % interval {low} to {high}, {plural(comparison.num_pairs, 'seed')})"


def _effect(results: Results, result: ArmResult) -> str:
    comparison = _against(results, result)
    mean = number(comparison.mean, 2, sign=True)
    is_claim = comparison.verdict in (Verdict.HELPS, Verdict.HURTS)
    doubt = _doubt(comparison).replace(";", ",") if is_claim else ""
    return f"{result.arm.name} with {mean} points of test accuracy{_interval(comparison)}{doubt}"


def _helps(results: Results, by_verdict: dict[Verdict, list[ArmResult]]) -> str:
    best, harm = by_verdict[Verdict.HELPS][0], ""
    if by_verdict[Verdict.HURTS]:
        harm = f" Not at every setting: it hurts {_effect(results, by_verdict[Verdict.HURTS][0])}."
    small = abs(_against(results, best).mean) < results.margin
    less = f", less than the margin of {results.margin:g} points" if small else ""
    opening = f"Tampering helps against the baseline as configured: {_effect(results, best)}{less}"
    comparison = best.comparison(results.tuned)
    if comparison is None or comparison.num_pairs == 0:
        tried = "was not tried"
        if any(result.arm.kind == "tuned" for result in results.arms.values()):
            tried = "is not known, as no run of the tuned baseline can be compared"
        return f"{opening}; whether tuning the baseline gains as much {tried}.{harm}"
    mean = f"{number(comparison.mean, 2, sign=True)} points{_interval(comparison)}"
    endings = {
        Verdict.HELPS: f"and against the tuned baseline as well: {mean}.",
        Verdict.HURTS: f"but the tuned baseline is better: {mean}.",
        Verdict.NO_DIFFERENCE: (
            f"but against the tuned baseline there is no difference larger than "
            f"{results.margin:g} points: {mean}."
        ),
        Verdict.INCONCLUSIVE: f"but against the tuned baseline it is inconclusive: {mean}.",
    }
    assert comparison.verdict is not None
    return f"{opening}, {endings[comparison.verdict]}{harm}"


def _hurts(results: Results, by_verdict: dict[Verdict, list[ArmResult]]) -> str:
    hurting = by_verdict[Verdict.HURTS]
    if len(hurting) == len(results.judged):
        where = "in every arm tried" if len(hurting) > 1 else "here"
        return f"Tampering hurts {where}: the most {_effect(results, hurting[0])}."
    rest = []
    for verdict, words in (
        (Verdict.NO_DIFFERENCE, f"no difference larger than {results.margin:g} points for"),
        (Verdict.INCONCLUSIVE, "inconclusive for"),
    ):
        if by_verdict[verdict]:
            rest.append(f"{words} {', '.join(r.arm.name for r in by_verdict[verdict])}")
    return (
        f"Tampering helps nowhere here: it hurts {_effect(results, hurting[0])}; {'; '.join(rest)}."
    )


def _inconclusive(results: Results, still_open: Sequence[ArmResult]) -> str:
    largest = still_open[0]
    comparison = _against(results, largest)
    if comparison.num_pairs == 0:
        return "Inconclusive: tampered and baseline runs have no seed in common yet."
    return f"Inconclusive: {_effect(results, largest)}; {seeds_phrase(comparison)}."
