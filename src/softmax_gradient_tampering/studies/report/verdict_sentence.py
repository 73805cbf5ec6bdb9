"""The report's first sentence: the whole truth of a study in one."""

from collections.abc import Callable, Iterable

from softmax_gradient_tampering.studies.analysis.comparison import ArmResult, Results
from softmax_gradient_tampering.studies.analysis.measurements import ACCURACY
from softmax_gradient_tampering.studies.analysis.verdict import Comparison, Verdict
from softmax_gradient_tampering.studies.plan.plan import State
from softmax_gradient_tampering.studies.report.control_phrases import (
    equivalent_control_phrase,
    tuned_control_phrase,
)
from softmax_gradient_tampering.studies.report.wording import (
    divergence_phrase,
    doubt_phrase,
    in_points,
    interval_phrase,
    number,
    plural,
    seeds_phrase,
    survivors_phrase,
)

_Arms = dict[Verdict, list[ArmResult]]
_MAX_NAMES = 8  # of arms with the same verdict
_IF = " if mean and spread stayed as they are"


def verdict_sentence(results: Results) -> str:
    """The report's first sentence: does tampering help here, or which arm does?"""
    if results.study.kind != "study":
        return _single_sentence(results)
    if all(cell.state is State.DIVERGED for cell in results.study.cells):
        return f"Nothing can be compared: every run diverged, {len(results.study.cells)} in all."
    if not any(result.runs for result in results.arms.values()):
        gone = _diverged(results.arms.values())
        return f"Nothing can be said yet: no run of this study is finished{gone}."
    if results.baseline is None:
        gone = _diverged(r for r in results.arms.values() if r.arm.kind == "baseline")
        return f"Nothing can be compared: no run of {_baseline(results)} is finished{gone}."
    if not results.judged:
        return _nothing_to_judge(results)
    if results.metric.key not in results.baseline.spreads:
        return (
            f"Nothing can be compared: no run of {_baseline(results)} says what its "
            f"{results.metric.label} is, by which this study is judged."
        )
    by_verdict = {verdict: _with_verdict(results, verdict) for verdict in Verdict}
    if not _is_of_tampering(results):
        return _sentence_of_any_arms(results, by_verdict)
    for verdict, write in _SENTENCES.items():
        if by_verdict[verdict]:
            return write(results, by_verdict)
    closest = by_verdict[Verdict.NO_DIFFERENCE][0]
    several = f"; the largest of {len(results.judged)} is " if len(results.judged) > 1 else ": "
    return (
        f"Tampering makes no difference larger than {in_points(results.margin)} here{several}"
        f"{_effect(results, closest)}."
    )


def _is_of_tampering(results: Results) -> bool:
    """Whether all that is judged is tampering, against a baseline without it."""
    assert results.baseline is not None
    is_ordinary = not results.baseline.arm.is_tampered
    return is_ordinary and all(result.arm.is_tampered for result in results.judged)


def _baseline(results: Results) -> str:
    """The baseline in words, whether it has runs or not."""
    arm = results.study.first("baseline")
    if arm is None or not (arm.is_tampered or arm.other_flags):
        return "the baseline, alpha 1,"
    return f"the baseline, {arm.name},"


def _diverged(arms: Iterable[ArmResult]) -> str:
    """How many runs of arms without a finished one diverged; empty where none did."""
    number = sum(len(arm.diverged) for arm in arms)
    return f"; {number} diverged" if number else ""


def _nothing_to_judge(results: Results) -> str:
    judged = [arm for arm in results.study.arms if arm.is_judged]
    if not judged:
        return f"Nothing is compared: there is no arm beside {_baseline(results).rstrip(',')}."
    if all(arm.is_tampered for arm in judged):
        return "Nothing can be said of tampering: no run with it is finished."
    return "Nothing can be compared: no run of another arm than the baseline is finished."


def _sentence_of_any_arms(results: Results, by_verdict: _Arms) -> str:
    """The sentence of arms of which not all are tampering: it names the arm that it is about."""
    assert results.baseline is not None
    verdict = next(each for each in (*_SENTENCES, Verdict.NO_DIFFERENCE) if by_verdict[each])
    arm = _most_diverged(results, by_verdict) if verdict is Verdict.DIVERGES else None
    arm = arm or by_verdict[verdict][0]
    name, baseline = arm.arm.name, f"the baseline {results.baseline.arm.name}"
    points, seeds = _points(results, arm), seeds_phrase(_against(results, arm), _IF)
    suggest = "The results suggest, and do not show, that "
    several = f"; the largest of {len(results.judged)} is " if len(results.judged) > 1 else ": "
    text = {
        Verdict.HELPS: f"{name} helps against {baseline}: {points}",
        Verdict.SUGGESTS_GAIN: f"{suggest}{name} helps against {baseline}: {points}",
        Verdict.HURTS: f"{name} hurts against {baseline}: {points}",
        Verdict.SUGGESTS_HARM: f"{suggest}{name} hurts against {baseline}: {points}",
        Verdict.DIVERGES: f"More runs of {name} diverged than of {baseline}: "
        f"{_divergence(results, arm)}",
        Verdict.NO_DIFFERENCE: f"No difference larger than {in_points(results.margin)} from "
        f"{baseline}{several}{name} with {points}",
        Verdict.INCONCLUSIVE: f"Inconclusive: {name} against {baseline}, {points}; {seeds}"
        if points
        else f"Inconclusive: no arm has a seed in common with {baseline} yet",
    }[verdict]
    if verdict in (Verdict.HELPS, Verdict.SUGGESTS_GAIN):
        text += _below_margin(results, arm)
        text += tuned_control_phrase(results, arm) + equivalent_control_phrase(results, arm)
    return f"{text}.{_other_arms(by_verdict, arm)}"


def _other_arms(by_verdict: _Arms, told: ArmResult) -> str:
    """The verdicts of the arms that a sentence is not about."""
    groups = []
    for verdict, results in by_verdict.items():
        names = [result.arm.name for result in results if result is not told]
        if names:
            more = f" and {len(names) - _MAX_NAMES} more" * (len(names) > _MAX_NAMES)
            groups.append(f"{', '.join(names[:_MAX_NAMES])}{more} ({verdict})")
    return f" Other arms: {'; '.join(groups)}." if groups else ""


def _below_margin(results: Results, result: ArmResult) -> str:
    is_small = abs(_against(results, result).mean) < results.margin
    return f", less than the margin of {results.margin:g} points" if is_small else ""


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


def _with_verdict(results: Results, verdict: Verdict) -> list[ArmResult]:
    """The arms of a verdict, the largest difference first, those without any last."""

    def size(result: ArmResult) -> float:
        comparison = _against(results, result)
        return abs(comparison.mean) if comparison.num_pairs else -1.0

    found = [r for r in results.judged if _against(results, r).verdict is verdict]
    return sorted(found, key=size, reverse=True)


def _effect(results: Results, result: ArmResult) -> str:
    """An arm and its difference in words."""
    if _against(results, result).num_pairs == 0:
        return f"{result.arm.name} without any pair of runs{_points(results, result)}"
    return f"{result.arm.name} with {_points(results, result)}"


def _points(results: Results, result: ArmResult) -> str:
    """A difference in words. The arm was picked for its size: the interval allows for that."""
    comparison = _against(results, result)
    if comparison.num_pairs == 0:
        return divergence_phrase(comparison)
    mean = number(comparison.mean, 2, sign=True)
    doubt = doubt_phrase(comparison).replace(";", ",") if comparison.verdict in _CLAIMS else ""
    interval = interval_phrase(comparison, len(results.judged))
    diverged = divergence_phrase(comparison).replace(";", ",")
    survivors = survivors_phrase(comparison)
    return f"{mean} points of {results.metric.label}{survivors}{interval}{diverged}{doubt}"


def _helps(results: Results, by_verdict: _Arms) -> str:
    return _gain(results, by_verdict, Verdict.HELPS, "Tampering helps")


def _suggests_gain(results: Results, by_verdict: _Arms) -> str:
    words = "The results suggest, and do not show, that tampering helps"
    return _gain(results, by_verdict, Verdict.SUGGESTS_GAIN, words)


def _gain(results: Results, by_verdict: _Arms, verdict: Verdict, words: str) -> str:
    best = by_verdict[verdict][0]
    less = _below_margin(results, best)
    opening = f"{words} against the baseline as configured: {_effect(results, best)}{less}"
    tuned = tuned_control_phrase(results, best)
    equivalent = equivalent_control_phrase(results, best)
    bad = (Verdict.HURTS, Verdict.SUGGESTS_HARM, Verdict.DIVERGES)
    elsewhere = [
        f"{kind.replace('suggests', 'the results suggest')} at "
        f"{', '.join(r.arm.name for r in by_verdict[kind])}"
        for kind in bad
        if by_verdict[kind]
    ]
    harm = f" Not at every setting: {'; '.join(elsewhere)}." if elsewhere else ""
    return f"{opening}{tuned}{equivalent}.{harm}"


def _diverges(results: Results, by_verdict: _Arms) -> str:
    worst = _most_diverged(results, by_verdict)
    rest = _rest(results, by_verdict, Verdict.DIVERGES)
    return f"With tampering, more runs diverged than without: {_divergence(results, worst)}{rest}."


def _most_diverged(results: Results, by_verdict: _Arms) -> ArmResult:
    return max(by_verdict[Verdict.DIVERGES], key=lambda r: _against(results, r).divergence.share)


def _divergence(results: Results, result: ArmResult) -> str:
    """How many of an arm's runs diverged, and how the others fared."""
    comparison = _against(results, result)
    own, reference = comparison.divergence, comparison.reference_divergence
    text = (
        f"{own.num_diverged} of {plural(own.num_ended, 'run')} of {result.arm.name}, of the "
        f"baseline {reference.num_diverged} of {reference.num_ended}"
    )
    if not comparison.num_pairs:
        return text
    mean = number(comparison.mean, 2, sign=True)
    interval = interval_phrase(comparison, len(results.judged))
    return f"{text}; the survivors differ by {mean} points of {results.metric.label}{interval}"


def _hurts(results: Results, by_verdict: _Arms) -> str:
    hurting = by_verdict[Verdict.HURTS]
    if len(hurting) == len(results.judged):
        where = "in every arm tried: the most " if len(hurting) > 1 else "here: "
        return f"Tampering hurts {where}{_effect(results, hurting[0])}."
    rest = _rest(results, by_verdict, Verdict.HURTS)
    return f"Tampering hurts {_effect(results, hurting[0])}{rest}."


def _suggests_harm(results: Results, by_verdict: _Arms) -> str:
    found = by_verdict[Verdict.SUGGESTS_HARM]
    words = "The results suggest, and do not show, that tampering hurts"
    rest = _rest(results, by_verdict, Verdict.SUGGESTS_HARM)
    return f"{words}: {_effect(results, found[0])}{rest}."


def _rest(results: Results, by_verdict: _Arms, told: Verdict) -> str:
    """The verdicts of the other arms, in a few words each."""
    words = {
        Verdict.HURTS: "it hurts",
        Verdict.SUGGESTS_HARM: "the results suggest harm for",
        Verdict.DIVERGES: "it diverges more often for",
        Verdict.NO_DIFFERENCE: f"no difference larger than {in_points(results.margin)} for",
        Verdict.INCONCLUSIVE: "inconclusive for",
    }
    rest = [
        f"; {text} {', '.join(result.arm.name for result in by_verdict[verdict])}"
        for verdict, text in words.items()
        if verdict is not told and by_verdict[verdict]
    ]
    return "".join(rest)


def _inconclusive(results: Results, by_verdict: _Arms) -> str:
    largest = by_verdict[Verdict.INCONCLUSIVE][0]
    comparison = _against(results, largest)
    if comparison.num_pairs == 0:
        return "Inconclusive: tampered and baseline runs have no seed in common yet."
    return f"Inconclusive: {_effect(results, largest)}; {seeds_phrase(comparison, _IF)}."


_CLAIMS = (Verdict.HELPS, Verdict.SUGGESTS_GAIN, Verdict.HURTS, Verdict.SUGGESTS_HARM)
# The first of these that an arm has makes the sentence.
_SENTENCES: dict[Verdict, Callable[[Results, _Arms], str]] = {
    Verdict.HELPS: _helps,
    Verdict.SUGGESTS_GAIN: _suggests_gain,
    Verdict.HURTS: _hurts,
    Verdict.DIVERGES: _diverges,
    Verdict.SUGGESTS_HARM: _suggests_harm,
    Verdict.INCONCLUSIVE: _inconclusive,
}
