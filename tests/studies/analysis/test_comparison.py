"""Arms side by side: what the runs of an arm have measured."""

import math

from softmax_gradient_tampering.studies.analysis.comparison import ArmResult
from softmax_gradient_tampering.studies.plan.plan import Arm


def test_runs_of_an_arm_may_have_measured_different_things() -> None:
    """A study that is grown by a newer program has runs of both."""
    values = {0: {"a": 1.0}, 1: {"a": math.nan, "recall:cat": 50.0}, 2: {"a": math.inf}}
    result = ArmResult(Arm("x", "ordinary"), 3, {}, frozenset(), values, "a", spreads={})
    assert result.by_seed("recall:cat") == {1: 50.0}
    assert result.by_seed("a") == {0: 1.0, 2: math.inf}
