"""What the controls leave of a gain: the ends of the report's first sentence."""

from softmax_gradient_tampering.studies.analysis.coincidence import (
    Coincidence,
    coincidence,
    equivalents_of,
)
from softmax_gradient_tampering.studies.analysis.comparison import ArmResult, Results
from softmax_gradient_tampering.studies.analysis.verdict import Verdict
from softmax_gradient_tampering.studies.report.wording import (
    divergence_phrase,
    interval_phrase,
    number,
    survivors_phrase,
)


def tuned_control_phrase(results: Results, best: ArmResult) -> str:
    """What is left of an arm's gain against the tuned baseline."""
    comparison = best.comparison(results.tuned)
    if comparison is None or comparison.num_pairs == 0:
        tried = "was not tried"
        if any(result.arm.kind == "tuned" for result in results.arms.values()):
            tried = "is not known, as no run of the tuned baseline can be compared"
        return f"; whether tuning the baseline gains as much {tried}"
    mean = (
        f"{number(comparison.mean, 2, sign=True)} points{survivors_phrase(comparison)}"
        f"{interval_phrase(comparison)}{divergence_phrase(comparison).replace(';', ',')}"
    )
    endings = {
        Verdict.HELPS: "and against the tuned baseline as well",
        Verdict.SUGGESTS_GAIN: "and the results suggest a gain against the tuned baseline too",
        Verdict.HURTS: "but the tuned baseline is better",
        Verdict.SUGGESTS_HARM: "but the results suggest that the tuned baseline is better",
        Verdict.DIVERGES: "but it diverges more often than the tuned baseline",
        Verdict.NO_DIFFERENCE: (
            f"but against the tuned baseline there is no difference larger than "
            f"{results.margin:g} points"
        ),
        Verdict.INCONCLUSIVE: "but against the tuned baseline it is inconclusive",
    }
    assert comparison.verdict is not None
    return f", {endings[comparison.verdict]}: {mean}"


def equivalent_control_phrase(results: Results, best: ArmResult) -> str:
    """Whether ordinary training at the equivalent settings gains as much."""
    control = next(iter(equivalents_of(results, best)), None)
    own = best.comparison(results.baseline)
    other = None if control is None else control.comparison(results.baseline)
    if control is None or own is None or other is None or other.num_pairs == 0:
        return ""
    mean = number(other.mean, 2, sign=True)
    if abs(other.mean - own.mean) <= min(results.margin, abs(own.mean) / 2):
        return (
            f"; ordinary training at the equivalent settings, {control.arm.name}, gains as much "
            f"({mean} points): it is a gain of those settings"
        )
    if coincidence(results, control) is Coincidence.WRONG:
        return (
            f"; {control.arm.name}, ordinary training that must coincide, has {mean} points: "
            "something is wrong"
        )
    return f"; {control.arm.name}, which it equals but for rounding, has {mean} points"
