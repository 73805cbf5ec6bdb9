"""Three lines for whoever decides: what to do, what it is worth, how far it holds."""

from softmax_gradient_tampering.studies.analysis.coincidence import (
    Coincidence,
    coincidence,
    equivalents_of,
)
from softmax_gradient_tampering.studies.analysis.comparison import (
    ArmResult,
    Results,
    count_states,
)
from softmax_gradient_tampering.studies.analysis.statistics import LEVEL
from softmax_gradient_tampering.studies.analysis.verdict import Comparison, Verdict
from softmax_gradient_tampering.studies.plan.plan import State
from softmax_gradient_tampering.studies.report.wording import (
    divergence_phrase,
    number,
    plural,
    range_phrase,
    seeds_phrase,
    survivors_phrase,
)

# The first of these that an arm has is what there is to decide about, as in the first sentence.
_ORDER = (
    Verdict.HELPS,
    Verdict.SUGGESTS_GAIN,
    Verdict.HURTS,
    Verdict.DIVERGES,
    Verdict.SUGGESTS_HARM,
    Verdict.INCONCLUSIVE,
    Verdict.NO_DIFFERENCE,
)
# Of an arm that gains over the baseline: what is left of it against the tuned baseline.
_AGAINST_TUNED = {
    Verdict.HELPS: "Take {arm}: it gains over {tuned}, the tuned baseline, as well.",
    Verdict.SUGGESTS_GAIN: (
        "Take {arm}: the results suggest a gain over {tuned}, the tuned baseline, too."
    ),
    Verdict.HURTS: (
        "Take the settings of {tuned}: ordinary training with them is better than {arm}."
    ),
    Verdict.SUGGESTS_HARM: (
        "Take the settings of {tuned}: the results suggest that ordinary training with them is "
        "better than {arm}."
    ),
    Verdict.DIVERGES: "Take the settings of {tuned}: with {arm} more runs diverge.",
    Verdict.NO_DIFFERENCE: (
        "Take the settings of {tuned}: ordinary training with them does as well as {arm}."
    ),
    Verdict.INCONCLUSIVE: (
        "Take {arm}, or the settings of {tuned}, which is ordinary training: which of the two is "
        "better is open."
    ),
}


def decision_lines(results: Results) -> list[tuple[str, str]]:
    """What there is to decide, as label and sentence; empty where nothing can be compared."""
    if results.study.kind != "study" or results.baseline is None:
        return []
    found = [
        (result, comparison)
        for result in results.judged
        if (comparison := result.comparison(results.baseline)) is not None
        and comparison.verdict is not None
    ]
    if not found:
        return []
    # Of one verdict, the largest difference; of a difference that is none, the least harm.
    arm, comparison = min(found, key=lambda pair: _rank(pair[1]))
    return [
        ("What to do", _advice(results, arm, comparison)),
        ("What it is worth", _worth(results, arm, comparison)),
        ("How far it holds", _reach(results)),
    ]


def _rank(comparison: Comparison) -> tuple[int, float]:
    assert comparison.verdict is not None
    size = abs(comparison.mean) if comparison.num_pairs else -1.0
    return _ORDER.index(comparison.verdict), -size


def _advice(results: Results, arm: ArmResult, comparison: Comparison) -> str:
    assert results.baseline is not None
    name, baseline = arm.arm.name, results.baseline.arm.name
    if comparison.verdict is Verdict.HELPS:
        return _advice_of_gain(results, arm, comparison)
    if _is_tuning_best(results):
        assert results.tuned is not None
        return (
            f"Take the settings of {results.tuned.arm.name}: ordinary training with them is better "
            f"than {baseline}, and no arm is shown to be better than that."
        )
    if comparison.verdict in (Verdict.SUGGESTS_GAIN, Verdict.INCONCLUSIVE):
        missing = _what_is_missing(comparison)
        return f"Do not decide on {name} yet: {missing}. Until then keep {baseline}."
    if comparison.verdict is Verdict.NO_DIFFERENCE:
        return f"Keep {baseline}: no arm differs from it by more than {results.margin:g} points."
    others = [
        result.arm.name
        for result in results.judged
        if (other := result.comparison(results.baseline)) is not None
        and other.verdict is Verdict.INCONCLUSIVE
    ]
    is_open = (
        f" Open is {', '.join(others[:4])}{' and others' * (len(others) > 4)}." if others else ""
    )
    return f"Keep {baseline}: no arm is shown to be better.{is_open}"


def _is_tuning_best(results: Results) -> bool:
    """Whether the tuned baseline is shown to be better, by what counts, and no arm than that."""
    if results.tuned is None:
        return False
    gain = results.tuned.comparison(results.baseline)
    against = [result.comparison(results.tuned) for result in results.judged]
    return (
        gain is not None
        and gain.mean >= results.margin
        and gain.p_claim < LEVEL
        and (gain.is_sequential or gain.is_borne_out)
        and gain.divergence.share <= gain.reference_divergence.share
        and not any(each is not None and each.verdict is Verdict.HELPS for each in against)
    )


def _advice_of_gain(results: Results, arm: ArmResult, gain: Comparison) -> str:
    name = arm.arm.name
    for control in equivalents_of(results, arm):
        if coincidence(results, control) is Coincidence.WRONG:
            return (
                f"Find out first what is wrong: {control.arm.name} must coincide with {name}, and "
                "does not."
            )
    comparison = arm.comparison(results.tuned)
    if comparison is not None and comparison.num_pairs and comparison.verdict is not None:
        assert results.tuned is not None
        return _AGAINST_TUNED[comparison.verdict].format(arm=name, tuned=results.tuned.arm.name)
    if abs(gain.mean) < results.margin:
        return (
            f"Take {name} only where it costs nothing: its gain is shown, and is less than the "
            f"{results.margin:g} points that count."
        )
    return (
        f"Take {name}, or first tune the learning rate and the weight decay of the baseline: "
        "whether that gains as much is not known."
    )


def _what_is_missing(comparison: Comparison) -> str:
    if comparison.verdict is Verdict.SUGGESTS_GAIN:
        return "the permutation test, which assumes less, does not bear the gain out; add seeds"
    return seeds_phrase(comparison)


def _worth(results: Results, arm: ArmResult, comparison: Comparison) -> str:
    """The difference of the arm, beside those of the controls."""
    diverged = divergence_phrase(comparison)
    if comparison.num_pairs == 0:
        return f"{arm.arm.name}: {diverged.removeprefix('; ') or 'no pair of runs yet'}."
    parts = [
        f"{arm.arm.name} {_points(comparison)}{survivors_phrase(comparison)}"
        f"{range_phrase(comparison, len(results.judged))}{diverged}"
    ]
    tuned = [] if results.tuned is None else [results.tuned]
    for control in (*equivalents_of(results, arm), *tuned):
        other = control.comparison(results.baseline)
        if other is not None and other.num_pairs:
            parts.append(f"{control.arm.name}, ordinary training, {_points(other)}")
    return f"{'; '.join(parts)}."


def _points(comparison: Comparison) -> str:
    return f"{number(comparison.mean, 2, sign=True)} points"


def _reach(results: Results) -> str:
    """What the numbers rest on, and what they say nothing of."""
    study = results.study
    ended = [result.divergence.num_ended for result in results.arms.values()]
    low, high = min(filter(None, ended)), max(ended)
    seeds = plural(high, "seed") if low == high else f"{low} to {plural(high, 'seed')}"
    missing = sum(
        count
        for state, count in count_states(study).items()
        if state not in (State.FINISHED, State.DIVERGED)
    )
    open_cells = f" {plural(missing, 'run')} of the plan {'is' if missing == 1 else 'are'} missing."
    return (
        f"{seeds}, on one split of one data set, after the last epoch: nothing here "
        f"says that other data or a longer training would agree.{open_cells * bool(missing)}"
    )
