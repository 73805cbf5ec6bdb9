"""Figures of the predictions: reliability diagrams, the most confused pairs of classes."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from softmax_gradient_tampering.studies.analysis.comparison import ArmResult, Results
from softmax_gradient_tampering.studies.report.figures.arm_styles import (
    arm_styles,
    short,
    shown_arms,
)
from softmax_gradient_tampering.studies.report.figures.figure_block import FigureBlock, arm_legend
from softmax_gradient_tampering.studies.report.figures.svg import INK, SERIES, WIDTH, Style, draw
from softmax_gradient_tampering.studies.results.predictions import (
    HELD_OUT,
    PLAIN,
    SCALED,
    Pair,
)
from softmax_gradient_tampering.studies.results.summary import FloatArray

MAX_PAIRS = 8
MAX_PAIR_ARMS = 4
# A bin of fewer samples, over all seeds, says nothing of an accuracy.
MIN_BIN_SAMPLES = 20
PREDICTION_STYLES = {
    PLAIN: Style(SERIES[1], "o"),
    SCALED: Style(SERIES[0], "s", (5, 1.6)),
    HELD_OUT: Style(SERIES[2], "^", (2, 1.2)),
}


def reliability_figure(results: Results) -> FigureBlock | None:
    """Accuracy against confidence, a panel an arm, pooled over its seeds."""
    arms = [r for r in shown_arms(results) if any(run.predictions for run in r.runs.values())]
    if not arms:
        return None
    panels = [_reliability_panel(number, result) for number, result in enumerate(arms)]
    caption = (
        "Accuracy of the test samples by the confidence of their prediction, in 15 bins, pooled "
        f"over seeds; bins of fewer than {MIN_BIN_SAMPLES} samples are left out. On the "
        "diagonal a prediction is as often right as it says; below it, it is over-confident. "
        "Where alpha is 1, softmax(alpha z) is softmax(z)."
    )
    legend = [(style, name) for name, style in PREDICTION_STYLES.items()]
    return FigureBlock("reliability", "Reliability", caption, panels, legend, is_small=True)


def pairs_figure(results: Results) -> FigureBlock | None:
    """The pairs of label and wrong prediction that occur most often."""
    arms = [
        result
        for result in shown_arms(results)
        if result.arm.kind != "equivalent" and any(run.predictions for run in result.runs.values())
    ][:MAX_PAIR_ARMS]
    counts = {result.arm.name: confusions(result) for result in arms}
    total: Counter[Pair] = Counter()
    for count in counts.values():
        total.update(count)
    # By their number, and by the pair where that is equal: the same report every time.
    pairs = sorted(total, key=lambda pair: (-total[pair], pair))[:MAX_PAIRS]
    if not pairs:
        return None
    caption = (
        "Test samples of the first class taken for the second, on average over the runs of an "
        f"arm; the {len(pairs)} pairs that are most frequent over the arms shown. Classes are "
        "numbered from 0, in the data set's order."
    )
    panel = _pairs_panel(results, pairs, counts)
    title = "Most confused pairs of classes"
    return FigureBlock("pairs", title, caption, [panel], arm_legend(results, arms))


def confusions(result: ArmResult) -> Counter[Pair]:
    """Wrongly predicted samples by (label, prediction), a mean over an arm's runs."""
    total: Counter[Pair] = Counter()
    predictions = [run.predictions for run in result.runs.values() if run.predictions is not None]
    for prediction in predictions:
        total.update(prediction.confused)
    return Counter({pair: count / len(predictions) for pair, count in total.items()})


def pooled_bins(result: ArmResult, prediction: str) -> FloatArray:
    """(3, bins) samples, sum of confidences and correct ones, over an arm's runs."""
    bins = [run.predictions.bins[prediction] for run in result.runs.values() if run.predictions]
    return np.sum(np.array(bins, dtype=np.float64), axis=0)


def _reliability_panel(number: int, result: ArmResult) -> Markup:
    shown = {
        prediction: pooled_bins(result, prediction)
        for prediction in PREDICTION_STYLES
        if prediction != SCALED or result.arm.logit_scale != 1
    }

    def plot(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.7)
        for prediction, bins in shown.items():
            samples, confidence, correct = bins[:, bins[0] >= MIN_BIN_SAMPLES]
            style = PREDICTION_STYLES[prediction]
            axes.plot(confidence / samples, correct / samples, **style.line)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
        axes.set_title(short(result.arm.name))
        axes.set_aspect("equal")

    means = ", ".join(
        f"{prediction} {100 * bins[1].sum() / bins[0].sum():.1f} %"
        for prediction, bins in shown.items()
    )
    any_bins = next(iter(shown.values()))
    accuracy = 100 * any_bins[2].sum() / any_bins[0].sum()
    description = (
        f"reliability of {result.arm.name}: accuracy {accuracy:.1f} %, mean confidence of {means}"
    )
    return draw(plot, f"reliability{number}", description, 3.0, 3.05)


def _pairs_panel(
    results: Results, pairs: Sequence[Pair], counts: Mapping[str, Mapping[Pair, float]]
) -> Markup:
    styles = arm_styles(results)
    labels = [f"{label} → {prediction}" for label, prediction in pairs]

    def plot(axes: Axes) -> None:
        for number, (name, count) in enumerate(counts.items()):
            shift = 0.14 * (number - (len(counts) - 1) / 2)
            places = [place + shift for place in range(len(pairs))]
            keywords = styles[name].line | {"linestyle": "none"}
            axes.plot([count.get(pair, 0) for pair in pairs], places, **keywords)
        axes.set_yticks(range(len(pairs)), labels)
        axes.set_ylim(len(pairs) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.set(xlabel="samples a run", ylabel="label → prediction")

    first = next(iter(counts))
    most = ", ".join(
        f"{label} {counts[first].get(pair, 0):.3g}"
        for label, pair in zip(labels, pairs, strict=True)
    )
    description = f"most confused pairs, label and prediction, samples a run of {first}: {most}"
    return draw(plot, "pairs", description, WIDTH, 0.8 + 0.3 * len(pairs))
