"""Whether an equivalent ordinary training coincides with the tampered one that it follows."""

import math
from enum import StrEnum

from softmax_gradient_tampering.studies.analysis.comparison import ArmResult, Results
from softmax_gradient_tampering.studies.analysis.verdict import Comparison, compare

# One in a hundred pairs of arms that rounding alone has set apart is called wrong.
_CONFIDENCE = 0.99


class Coincidence(StrEnum):
    """How an equivalent training stands to the tampered one.

    Same: all predictions that could be compared are equal.
    Apart: some are not, and what is judged differs by no more than those of two seeds would.
    Wrong: it differs by more than that.
    """

    SAME = "same"
    APART = "apart"
    WRONG = "wrong"


def followed_arm(results: Results, control: ArmResult) -> ArmResult | None:
    """The tampered arm that an equivalent one must coincide with."""
    return None if control.arm.follows is None else results.arms.get(control.arm.follows)


def equivalents_of(results: Results, arm: ArmResult) -> list[ArmResult]:
    """The equivalent arms that must coincide with an arm."""
    return [control for control in results.arms.values() if control.arm.follows == arm.arm.name]


def coincidence(results: Results, control: ArmResult) -> Coincidence | None:
    """How an equivalent arm stands to the one that it follows; None without a pair of runs."""
    followed = followed_arm(results, control)
    if followed is None:
        return None
    difference = compare(
        control.of_survivors(control.metric),
        followed.of_survivors(followed.metric),
        is_tested=False,
    )
    if difference.num_pairs == 0:
        return None
    if _differs(difference):
        return Coincidence.WRONG
    agreements = results.study.agreements.get(control.arm.name, {}).values()
    same = [agreement.num_same == agreement.num_samples for agreement in agreements]
    is_same = all(same) if same else not any(difference.differences.values())
    return Coincidence.SAME if is_same else Coincidence.APART


def is_exact(alpha: float) -> bool:
    """Whether nothing is rounded when numbers are multiplied by alpha: a power of two.

    >>> is_exact(0.25), is_exact(0.1)
    (True, False)
    """
    return alpha > 0 and math.frexp(alpha)[0] == 0.5


def _differs(difference: Comparison) -> bool:
    """Whether the differences are of one sign, or nearly so, over several seeds."""
    if difference.num_pairs < 2:
        return False
    if difference.sd == 0:
        return difference.mean != 0
    return abs(difference.mean) > difference.half_width_at(_CONFIDENCE)
