"""How every arm is drawn: one alpha, one colour and marker; one kind of arm, one dash and fill."""

from softmax_gradient_tampering.studies.analysis.comparison import ArmResult, Results
from softmax_gradient_tampering.studies.report.figures.style import (
    INK,
    MARKERS,
    NUM_COLORS,
    Style,
)
from softmax_gradient_tampering.studies.report.rendering import clean

# More lines than this on one panel cannot be told apart.
MAX_ARMS = 8
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.6), (2, 1.2), (6, 1.5, 1.5, 1.5))
_DOTTED = (1, 1.3)
_LABEL_LENGTH = 26

BASELINE = Style(INK, "circle")
TUNED = Style(INK, "circle", (4, 1.6), is_hollow=True)


def arm_styles(results: Results) -> dict[str, Style]:
    """The style of every arm by its name."""
    tampered = sorted(
        (r.arm for r in results.arms.values() if r.arm.kind == "tampered"), key=lambda a: -a.alpha
    )
    ordinary = [r.arm for r in results.arms.values() if r.arm.kind == "ordinary"]
    styles = {}
    for number, arm in enumerate([*tampered, *ordinary]):
        color = 1 + number % NUM_COLORS
        marker, dash = MARKERS[number % len(MARKERS)], _DASHES[number % len(_DASHES)]
        styles[arm.name] = Style(color, marker, dash, is_hollow=arm.kind == "ordinary")
    number = len(styles)
    for result in results.arms.values():
        arm = result.arm
        if arm.kind in ("baseline", "tuned"):
            styles[arm.name] = BASELINE if arm.kind == "baseline" else TUNED
        elif arm.kind == "equivalent":
            followed = styles.get(arm.follows or "", BASELINE)
            styles[arm.name] = Style(followed.color, followed.marker, _DOTTED, is_hollow=True)
        elif arm.kind == "scheduled":
            color = 1 + number % NUM_COLORS
            styles[arm.name] = Style(color, MARKERS[-1 - number % 4], _DASHES[3], is_hollow=True)
            number += 1
    return {name: styles.get(name, BASELINE) for name in results.arms}


def shown_arms(results: Results, room: int = MAX_ARMS) -> list[ArmResult]:
    """The arms with runs that there is room for: baselines, then alphas evenly, then the rest."""
    with_runs = [result for result in results.arms.values() if result.runs]
    if len(with_runs) <= room:
        return with_runs
    first = [r for r in with_runs if r is results.baseline or r is results.tuned]
    tampered = sorted((r for r in with_runs if r.arm.kind == "tampered"), key=lambda r: r.arm.alpha)
    left = room - len(first)
    if len(tampered) > left:
        steps = (round(k * (len(tampered) - 1) / (left - 1)) for k in range(left))
        tampered = [tampered[step] for step in steps]
    rest = [r for r in with_runs if r not in first and r.arm.kind != "tampered"]
    chosen = {id(result) for result in [*first, *tampered, *rest][:room]}
    return [result for result in with_runs if id(result) in chosen]


def short(name: str, length: int = _LABEL_LENGTH) -> str:
    """A name as a label that fits beside an axis or above a panel.

    It is cut in the middle: long names often differ at their ends alone.
    """
    label, end = clean(name), length // 3
    return label if len(label) <= length else f"{label[: length - end - 1]}…{label[-end:]}"
