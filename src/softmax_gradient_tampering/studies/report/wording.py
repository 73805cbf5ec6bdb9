"""What the numbers say, in sentences."""

import math

from softmax_gradient_tampering.studies.analysis.coincidence import (
    Coincidence,
    coincidence,
    is_exact,
)
from softmax_gradient_tampering.studies.analysis.comparison import (
    ArmResult,
    Results,
    count_states,
)
from softmax_gradient_tampering.studies.analysis.measurements import (
    BALANCED,
    LOWEST_RECALL,
    MACRO_F1,
)
from softmax_gradient_tampering.studies.analysis.statistics import CONFIDENCE, LEVEL
from softmax_gradient_tampering.studies.analysis.verdict import Comparison, Verdict
from softmax_gradient_tampering.studies.plan.plan import State
from softmax_gradient_tampering.studies.results.study import Study

_MAX_ARMS = 4  # that are named
MINUS = "\u2212"
MARKS = {
    Verdict.HELPS: "▲",
    Verdict.SUGGESTS_GAIN: "△",
    Verdict.HURTS: "▼",
    Verdict.SUGGESTS_HARM: "▽",
    Verdict.DIVERGES: "✕",
    Verdict.NO_DIFFERENCE: "=",
    Verdict.INCONCLUSIVE: "?",
}


def in_points(number: float) -> str:
    """A difference of accuracies in words.

    >>> in_points(1), in_points(0.5)
    ('1 point', '0.5 points')
    """
    return f"{number:g} point{'' if number == 1 else 's'}"


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


def sentence_case(text: str) -> str:
    """A text with a capital at its beginning.

    >>> sentence_case("macro-F1")
    'Macro-F1'
    """
    return text[:1].upper() + text[1:]


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "seed"), plural(10, "seed")
    ('1 seed', '10 seeds')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def arm_sentence(comparison: Comparison, margin: float) -> str:
    """An arm's verdict, and what it rests on."""
    if comparison.num_pairs == 0:
        diverged = divergence_phrase(comparison).removeprefix("; ")
        return diverged or "no seed in common, so nothing can be said"
    effect = (
        f"{number(comparison.mean, 2, sign=True)} points{survivors_phrase(comparison)}"
        f"{interval_phrase(comparison)}{divergence_phrase(comparison)}"
    )
    if comparison.verdict is Verdict.DIVERGES:
        return f"diverges more often than the baseline: {effect}"
    if comparison.verdict is Verdict.NO_DIFFERENCE:
        return f"no difference larger than {in_points(margin)}: {effect}"
    if comparison.verdict is not Verdict.INCONCLUSIVE:
        is_small = abs(comparison.mean) < margin
        small = f", less than the margin of {margin:g} points" if is_small else ""
        return f"{comparison.verdict}: {effect}{small}{doubt_phrase(comparison)}"
    return f"inconclusive: {effect}; {seeds_phrase(comparison)}"


def seeds_phrase(comparison: Comparison, condition: str = "") -> str:
    """How many seeds would settle a comparison that is open, on this condition."""
    if comparison.num_pairs < 2:
        return "one seed has no interval; it takes several to say anything"
    if comparison.seeds is None:
        return "more seeds than can be told would be needed"
    return f"about {comparison.seeds:,} seeds would settle it{condition}"


def completeness_sentence(study: Study) -> str:
    """How many runs the report rests on."""
    counts = count_states(study)
    finished = counts.pop(State.FINISHED, 0)
    if not counts:
        return f"All {len(study.cells)} runs are finished."
    rest = ", ".join(f"{count} {state}" for state, count in counts.items())
    if not finished:
        return f"None of {plural(len(study.cells), 'run')} is finished; {rest}."
    may_change = " The verdict may change." if counts.keys() - {State.DIVERGED} else ""
    return (
        f"{finished} of {len(study.cells)} runs are finished, and the numbers rest on those "
        f"alone; {rest}.{may_change}"
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
    seeds = plural(len(found), "seed")
    share = f"{number(100 * same / samples, 3)} % of {samples:,}"
    classes = (
        f"all {samples:,} predicted classes of {seeds} are the same"
        if same == samples
        else f"{share} predicted classes are the same, all of them in {whole} of {seeds}"
    )
    logits = (
        f"differ from alpha z by at most {worst.deviation:.2g}, where alpha z goes up to "
        f"{worst.scale:.3g}"
        if worst.deviation
        else "are alpha z, bit by bit"
    )
    phrase = _coincidence_phrase(results, results.arms[name])
    return f"{classes}; the logits {logits}{phrase}"


def _coincidence_phrase(results: Results, control: ArmResult) -> str:
    """What the difference of an equivalent arm means, where there is one."""
    found = coincidence(results, control)
    if found is Coincidence.WRONG:
        return "; the accuracies differ by more than rounding explains: something is wrong"
    if found is not Coincidence.APART:
        return ""
    if is_exact(control.arm.alpha):
        return (
            f"; alpha {control.arm.alpha:g} is a power of two, at which nothing is rounded "
            "differently: a device that does not add in a fixed order would explain it"
        )
    return (
        f"; alpha {control.arm.alpha:g} is no power of two, so that rounding sets the two apart "
        "in the course of a training, as here"
    )


def doubt_phrase(comparison: Comparison) -> str:
    """Why a claim is to be doubted: by the permutation test. A sequence stands alone."""
    if comparison.is_borne_out or comparison.is_sequential:
        return ""
    if 2.0 ** (1 - comparison.num_pairs) >= LEVEL:
        return "; too few seeds for the permutation test to bear it out"
    return f"; the permutation test does not bear it out, p = {p_value(comparison.p_permutation)}"


def divergence_phrase(comparison: Comparison) -> str:
    """How many runs of both arms diverged, where any did."""
    own, reference = comparison.divergence, comparison.reference_divergence
    if not own.num_diverged and not reference.num_diverged:
        return ""
    return (
        f"; {own.num_diverged} of {plural(own.num_ended, 'run')} diverged, of the reference "
        f"{reference.num_diverged} of {reference.num_ended}"
    )


def survivors_phrase(comparison: Comparison) -> str:
    """That a difference is the survivors', where runs diverged."""
    return " of the survivors" if divergence_phrase(comparison) else ""


def range_phrase(comparison: Comparison, num_arms: int = 1) -> str:
    """`interval_phrase` where it has been told already what the interval is."""
    half = comparison.half_width_at(1 - (1 - CONFIDENCE) / num_arms)
    if not comparison.has_interval or math.isinf(half):
        return interval_phrase(comparison, num_arms)
    low, high = (number(v, 2, sign=True) for v in (comparison.mean - half, comparison.mean + half))
    return f" (95 %: {low} to {high})"


def interval_phrase(comparison: Comparison, num_arms: int = 1) -> str:
    """The interval, for the largest of several arms the wider one that holds for all at once."""
    pairs = plural(comparison.num_pairs, "seed")
    if comparison.num_pairs < 2:
        return f" ({pairs})"
    if comparison.sd == 0:
        return f" ({pairs}, all of them equal)"
    half = comparison.half_width_at(1 - (1 - CONFIDENCE) / num_arms)
    if math.isinf(half):
        return f" ({pairs}, too few for a confidence sequence)"
    low, high = (number(v, 2, sign=True) for v in (comparison.mean - half, comparison.mean + half))
    for_all = f" for the largest of {num_arms} arms" if num_arms > 1 else ""
    if comparison.is_sequential:
        return f" (95 % confidence sequence{for_all} {low} to {high} after {pairs})"
    return f" (95 % interval{for_all} {low} to {high}, {pairs})"


def caution_sentences(results: Results) -> list[str]:
    """That accuracies are but the largest class's, that the test set is small; or nothing."""
    return list(filter(None, (majority_sentence(results), sampling_sentence(results))))


def majority_sentence(results: Results) -> str:
    """That accuracies are hardly better than always the largest class; empty where none is."""
    near, num_known = [], 0
    for result in results.arms.values():
        counts = [run.classes for run in result.runs.values() if run.classes is not None]
        if counts:
            num_known += 1
            accuracy = math.fsum(found.accuracy for found in counts) / len(counts)
            if counts[0].is_near_largest(accuracy):
                near.append((result.arm.name, counts[0]))
    if not near:
        return ""
    none = "is not" if len(near) == 1 else "are not"
    arms = f"{_listed([arm for arm, _ in near])} {none}"
    if len(near) == num_known > 1:
        arms = "no arm is"
    _, largest = near[0]
    name = largest.names[largest.largest]
    advice = "Look at the balanced accuracy and at the recall of each class."
    if results.metric.key in (BALANCED, MACRO_F1, LOWEST_RECALL):
        advice = f"The {results.metric.label}, by which the arms are judged, allows for that."
    return (
        f"{largest.largest_share:.3g} % of the test samples are of class {name}: {arms} clearly "
        f"more accurate than always answering {name}. {advice}"
    )


def sampling_sentence(results: Results) -> str:
    """That another test set may say more against a difference than other seeds; else empty."""
    arms = []
    for result in results.judged:
        comparison = result.comparison(results.baseline)
        if comparison is not None and comparison.test_half_width > comparison.half_width:
            seeds = f"beside ±{number(comparison.half_width, 2)}"
            if comparison.sd == 0:
                seeds = "where all seeds differ by the same"
            test = number(comparison.test_half_width, 2)
            arms.append(f"{result.arm.name} ±{test} points {seeds}")
    if not arms:
        return ""
    samples = _num_samples(results.judged)
    return (
        f"The test set of {samples:,} samples leaves more open than the seeds do: {_listed(arms)}. "
        "The intervals are over seeds; another test set of this size may give differences that "
        "lie outside them."
    )


def _num_samples(arms: list[ArmResult]) -> int:
    runs = (run for result in arms for run in result.runs.values())
    return next(sum(run.classes.samples) for run in runs if run.classes is not None)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_MAX_ARMS]) + " and others" * (len(names) > _MAX_ARMS)
