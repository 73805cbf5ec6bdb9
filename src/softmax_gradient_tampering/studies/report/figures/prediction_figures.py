"""Figures of the predictions: reliability diagrams, the most confused pairs of classes."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from softmax_gradient_tampering.studies.analysis.comparison import ArmResult, Results
from softmax_gradient_tampering.studies.report.figures.arm_styles import (
    arm_styles,
    short,
    shown_arms,
)
from softmax_gradient_tampering.studies.report.figures.chart import (
    SIZE,
    Chart,
    Panel,
    names,
    numbers,
)
from softmax_gradient_tampering.studies.report.figures.figure_block import FigureBlock, arm_legend
from softmax_gradient_tampering.studies.report.figures.scale import Scale
from softmax_gradient_tampering.studies.report.figures.style import Style
from softmax_gradient_tampering.studies.results.predictions import (
    HELD_OUT,
    PLAIN,
    SCALED,
    Pair,
)
from softmax_gradient_tampering.studies.results.summary import FloatArray

SQUARE = (172.0, 175.0)  # with what stands around it
MAX_PAIRS = 8
MAX_PAIR_ARMS = 4
# A bin of fewer samples, over all seeds, says nothing of an accuracy.
MIN_BIN_SAMPLES = 20
PREDICTION_STYLES = {
    PLAIN: Style(2, "circle"),
    SCALED: Style(1, "square", (5, 1.6)),
    HELD_OUT: Style(3, "up", (2, 1.2)),
}


def reliability_figure(results: Results) -> FigureBlock | None:
    """Accuracy against confidence, a panel an arm, pooled over its seeds."""
    arms = [r for r in shown_arms(results) if any(run.predictions for run in r.runs.values())]
    if not arms:
        return None
    panels = [_reliability_panel(result) for result in arms]
    caption = (
        "Accuracy of the test samples by the confidence of their prediction, in 15 bins, pooled "
        f"over seeds; bins of fewer than {MIN_BIN_SAMPLES} samples are left out. On the "
        "diagonal a prediction is as often right as it says; below it, it is over-confident. "
        "Where alpha is 1, softmax(alpha z) is softmax(z)."
    )
    legend = [(style, name) for name, style in PREDICTION_STYLES.items()]
    return FigureBlock("reliability", "Reliability", caption, panels, legend, size="small")


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
        f"arm; the {len(pairs)} pairs that are most frequent over the arms shown."
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


def _reliability_panel(result: ArmResult) -> Panel:
    shown = {
        prediction: pooled_bins(result, prediction)
        for prediction in PREDICTION_STYLES
        if prediction != SCALED or result.arm.logit_scale != 1
    }
    side = Scale(0, 1.02)
    chart = Chart(short(result.arm.name), numbers(side, "confidence"), numbers(side, "accuracy"),
                  SQUARE)  # fmt: skip
    chart.rule((0, 0), (1, 1))
    for prediction, bins in shown.items():
        samples, confidence, correct = bins[:, bins[0] >= MIN_BIN_SAMPLES]
        style = PREDICTION_STYLES[prediction]
        xs, ys = (confidence / samples).tolist(), (correct / samples).tolist()
        if xs:
            chart.line(xs, ys, style)
        titles = [
            f"{prediction}: confidence {x:.3f}, accuracy {y:.3f}, {count:.0f} samples"
            for x, y, count in zip(xs, ys, samples, strict=True)
        ]
        chart.marks(xs, ys, style, titles)
    means = ", ".join(
        f"{prediction} {100 * bins[1].sum() / bins[0].sum():.1f} %"
        for prediction, bins in shown.items()
    )
    any_bins = next(iter(shown.values()))
    accuracy = 100 * any_bins[2].sum() / any_bins[0].sum()
    return chart.panel(
        f"reliability of {result.arm.name}: accuracy {accuracy:.1f} %, mean confidence of {means}"
    )


def _pairs_panel(
    results: Results, pairs: Sequence[Pair], counts: Mapping[str, Mapping[Pair, float]]
) -> Panel:
    styles = arm_styles(results)
    labels = [" → ".join(short(results.study.class_name(n), 14) for n in pair) for pair in pairs]
    most = max(count.get(pair, 0.0) for count in counts.values() for pair in pairs)
    x = numbers(Scale(0, most * 1.05), "samples a run")
    chart = Chart("label → prediction", x, names(labels), (SIZE[0], 55 + 23 * len(pairs)))
    for place, (name, count) in enumerate(counts.items()):
        shift = 0.14 * (place - (len(counts) - 1) / 2)
        values = [count.get(pair, 0.0) for pair in pairs]
        titles = [
            f"{name}, {label}: {value:.3g} samples a run"
            for label, value in zip(labels, values, strict=True)
        ]
        chart.marks(values, [row + shift for row in range(len(pairs))], styles[name], titles)
    first = next(iter(counts))
    listed = ", ".join(
        f"{label} {counts[first].get(pair, 0):.3g}"
        for label, pair in zip(labels, pairs, strict=True)
    )
    return chart.panel(
        f"most confused pairs, label and prediction, samples a run of {first}: {listed}"
    )
