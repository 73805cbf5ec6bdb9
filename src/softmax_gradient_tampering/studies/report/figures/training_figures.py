"""Figures over the epochs: accuracy, loss, filter norms."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from softmax_gradient_tampering.studies.analysis.comparison import ArmResult, Results
from softmax_gradient_tampering.studies.analysis.curves import Curve, arm_curve
from softmax_gradient_tampering.studies.report.figures.arm_styles import (
    BASELINE,
    arm_styles,
    short,
    shown_arms,
)
from softmax_gradient_tampering.studies.report.figures.chart import (
    SIZE,
    Chart,
    Panel,
    numbers,
    whole_numbers,
)
from softmax_gradient_tampering.studies.report.figures.figure_block import FigureBlock, arm_legend
from softmax_gradient_tampering.studies.report.figures.scale import Scale, linear, logarithmic
from softmax_gradient_tampering.studies.report.figures.style import Style
from softmax_gradient_tampering.studies.report.wording import number
from softmax_gradient_tampering.studies.results.run_files import read_filter_norms
from softmax_gradient_tampering.studies.results.summary import FloatArray

# A curve is drawn by at most this many epochs, so that a page of long runs stays small.
MAX_EPOCHS = 80
MIN_CUT_EPOCHS = 10  # shorter curves are shown from their first epoch
MAX_TOGETHER = 5  # arms whose bands can be told apart on one panel
MAX_TINY = 40  # arms with a panel of their own
MAX_LAYERS = 6
MAX_FILTER_ARMS = 3
TINY = (152.0, 112.0)
_OWN = Style(1, "square")
_COLUMNS = {
    "eval_top1": "test accuracy (%)",
    "train_acc": "train accuracy (%)",
    "eval_loss": "test loss (nats)",
    "train_loss": "train loss (nats)",
}
_Curves = Mapping[str, Curve]


def curves_figures(results: Results) -> list[FigureBlock]:
    """Accuracy and loss over the epochs; none where there was one epoch.

    A few arms share their panels. Of more, each has a panel of its own, with the baseline in it.
    """
    arms = shown_arms(results, MAX_TINY)
    are_together = len(arms) <= MAX_TOGETHER
    found = {}
    for column in _COLUMNS:
        curves = {
            result.arm.name: curve
            for result in arms
            if (curve := arm_curve(list(result.runs.values()), column)) is not None
        }
        if curves and max(len(curve.epochs) for curve in curves.values()) > 1:
            found[column] = curves
    if not found:
        return []
    if are_together:
        return [_figure_together(results, arms, found)]
    left_out = sum(bool(r.runs) for r in results.arms.values()) - len(arms)
    return [
        _figure_apart(results, column, found[column], left_out)
        for column in ("eval_top1", "eval_loss")
        if column in found
    ]


def filter_norms_figure(results: Results) -> tuple[FigureBlock | None, list[str]]:
    """The filters' norms over the epochs, and what could not be read; None without any."""
    norms, problems = {}, []
    arms = []
    for result in _with_filters(results):
        for run in result.runs.values():
            try:
                found = read_filter_norms(run.path) if run.path.is_dir() else {}
            except ValueError as error:
                problems.append(f"{result.arm.name}: {error}")
                continue
            if len(found) > 1 and len(found["epochs"]) > 1:  # one epoch is no line
                norms[result.arm.name] = found
                arms.append(result)
                break
    layers = list(next(iter(norms.values()), {}))[1:]
    if not layers:
        return None, problems
    shown = [layers[index] for index in _evenly(len(layers), MAX_LAYERS)]
    panels = [_norms_panel(results, layer, norms) for layer in shown]
    caption = (
        "The l2 norms of the filters of one run of each arm, that of its first seed: median, "
        "and a band from the 10th to the 90th percentile of the layer's filters."
        + (f" {len(shown)} of {len(layers)} layers." if len(shown) < len(layers) else "")
    )
    block = FigureBlock(
        "filters", "Filter norms over the epochs", caption, panels, arm_legend(results, arms)
    )
    return block, problems


def _figure_together(
    results: Results, arms: Sequence[ArmResult], found: Mapping[str, _Curves]
) -> FigureBlock:
    band = "Means over seeds with bands of their 95 % intervals. " * _are_several(arms)
    caption = (
        f"{band}{_cut_sentence(found)}The loss axes are logarithmic where the losses span more "
        "than a factor of three. The loss is the ordinary cross-entropy of softmax(z) at every "
        "alpha."
    )
    panels = [_panel_together(results, column, curves) for column, curves in found.items()]
    title = "Accuracy and loss over the epochs"
    return FigureBlock("curves", title, caption, panels, arm_legend(results, arms))


def _figure_apart(results: Results, column: str, curves: _Curves, left_out: int) -> FigureBlock:
    """A panel an arm, on axes that all of them share, with the baseline in grey."""
    label = _COLUMNS[column]
    is_loss = column.endswith("loss")
    y = _loss_scale(curves) if is_loss else _accuracy_scale(curves)
    baseline = None if results.baseline is None else curves.get(results.baseline.arm.name)
    last = max(float(curve.epochs[-1]) for curve in curves.values())
    panels = []
    for name, curve in curves.items():
        end = number(float(curve.mean[-1]), 3 if is_loss else 2)
        chart = Chart(
            f"{short(name, 17)}: {end}",
            whole_numbers(Scale(0.5, last), "", 3),
            numbers(y, "", 3),
            TINY,
        )
        if baseline is not None and curve is not baseline:
            kept = _kept(baseline)
            chart.line(baseline.epochs[kept], baseline.mean[kept], Style(0, "circle", (3, 2)))
        _draw_curve(chart, name, curve, BASELINE if curve is baseline else _OWN)
        panels.append(chart.panel(f"{label} of {name} over the epochs, {end} after the last"))
    caption = (
        "A panel an arm, all with the same axes: the mean over seeds with the band of its 95 % "
        "interval, and, dashed, that of the baseline. Above it the arm and its mean after the "
        f"last epoch. {_cut_sentence({column: curves})}"
        "A curve may leave a panel whose axes are fitted to nine tenths of the arms."
        + (f" {left_out} further arms are in the CSV files." if left_out else "")
    )
    title = f"{label.rpartition(' ')[0].capitalize()} over the epochs"
    return FigureBlock(f"curves-{column}", title, caption, panels, size="tiny")


def _cut_sentence(found: Mapping[str, _Curves]) -> str:
    longest = max(len(curve.epochs) for curves in found.values() for curve in curves.values())
    has_accuracy = any(not column.endswith("loss") for column in found)
    return "The accuracy axes are fitted to the epochs after the first three tenths. " * (
        longest >= MIN_CUT_EPOCHS and has_accuracy
    )


def _are_several(arms: Sequence[ArmResult]) -> bool:
    return any(len(result.runs) > 1 for result in arms)


def _with_filters(results: Results) -> list[ArmResult]:
    """The baseline and some tampered arms: bands of more of them hide each other."""
    shown = shown_arms(results)
    tampered = [result for result in shown if result.arm.kind == "tampered"]
    first = [result for result in shown if result is results.baseline]
    return first + [tampered[index] for index in _evenly(len(tampered), MAX_FILTER_ARMS)]


def _panel_together(results: Results, column: str, curves: _Curves) -> Panel:
    styles = arm_styles(results)
    label = _COLUMNS[column]
    y = _loss_scale(curves) if column.endswith("loss") else _accuracy_scale(curves)
    last = max(float(curve.epochs[-1]) for curve in curves.values())
    chart = Chart(label, whole_numbers(Scale(0.5, last), "epoch"), numbers(y, ""))
    for place, (name, curve) in enumerate(curves.items()):
        _draw_curve(chart, name, curve, styles[name], place)
    ends = ", ".join(f"{name} {curve.mean[-1]:.4g}" for name, curve in curves.items())
    return chart.panel(f"{label} over the epochs; after the last epoch: {ends}")


def _draw_curve(
    chart: Chart, name: str, curve: Curve, style: Style, first_mark: int | None = None
) -> None:
    """A curve with its band; marks that begin elsewhere tell equal curves apart."""
    kept = _kept(curve)
    epochs, mean, half = (values[kept].tolist() for values in curve[:1] + curve[2:])
    band = [n for n, value in enumerate(half) if math.isfinite(value) and value > 0]
    if band:
        lows = [mean[n] - half[n] for n in band]
        if min(mean) > 0:  # a log axis needs them above 0
            lows = [max(low, mean[n] / 4) for low, n in zip(lows, band, strict=True)]
        chart.band([epochs[n] for n in band], lows, [mean[n] + half[n] for n in band], style)
    chart.line(epochs, mean, style, f"{name}: {mean[-1]:.4g} after epoch {epochs[-1]:.0f}")
    if first_mark is not None:
        step = max(1, len(epochs) // 5)
        marked = range(min(first_mark, step - 1), len(epochs), step)
        titles = [f"{name}, epoch {epochs[n]:.0f}: {mean[n]:.4g}" for n in marked]
        chart.marks([epochs[n] for n in marked], [mean[n] for n in marked], style, titles)


def _kept(curve: Curve) -> FloatArray:
    """The places of the epochs that are drawn."""
    return np.unique(np.linspace(0, len(curve.epochs) - 1, MAX_EPOCHS).astype(int))


def _loss_scale(curves: _Curves) -> Scale:
    return logarithmic(float(value) for curve in curves.values() for value in curve.mean)


def _accuracy_scale(curves: _Curves) -> Scale:
    """From the worst epoch of the later ones to the best; of many arms, of nine tenths of them."""
    lows, highs = [], []
    for curve in curves.values():
        half = np.nan_to_num(curve.half_width)
        length = len(curve.mean)
        start = math.ceil(0.3 * length) if length >= MIN_CUT_EPOCHS else 0
        lows.append(float((curve.mean - half)[start:].min()))
        highs.append(float((curve.mean + half)[start:].max()))
    lows.sort()
    lowest = lows[len(lows) // 10] if len(lows) > MAX_TOGETHER else lows[0]
    scale = linear((lowest, max(highs)), least_span=0.5)
    low = max(0.0, scale.low)
    return Scale(low, min(scale.high, 100 + 0.02 * (100 - low)))  # no accuracy is above it


def _norms_panel(
    results: Results, layer: str, norms: Mapping[str, Mapping[str, FloatArray]]
) -> Panel:
    styles = arm_styles(results)
    lines = {}
    for name, arrays in norms.items():
        if layer in arrays:
            kept = np.unique(np.linspace(0, len(arrays["epochs"]) - 1, MAX_EPOCHS).astype(int))
            bounds = np.nanpercentile(arrays[layer][kept], (10, 50, 90), axis=1)
            lines[name] = (arrays["epochs"][kept].tolist(), *bounds.tolist())
    top = max((value for line in lines.values() for value in line[3]), default=1.0)
    last = max((line[0][-1] for line in lines.values()), default=1.0)
    x = whole_numbers(Scale(0.5, max(last, 1.5)), "epoch")
    chart = Chart(f"filter norm, {short(layer)}", x, numbers(Scale(0, top * 1.05 or 1.0), ""), SIZE)
    for name, (epochs, low, middle, high) in lines.items():
        chart.band(epochs, low, high, styles[name])
        end = f"{name}: median {middle[-1]:.3g} after epoch {epochs[-1]:.0f}"
        chart.line(epochs, middle, styles[name], end)
    ends = ", ".join(f"{name} {middle[-1]:.3g}" for name, (_, _, middle, _) in lines.items())
    return chart.panel(f"filter norms of {layer} over the epochs; medians after the last: {ends}")


def _evenly(length: int, number: int) -> list[int]:
    """At most `number` indices from first to last, evenly spaced."""
    if length <= number:
        return list(range(length))
    return [round(k * (length - 1) / (number - 1)) for k in range(number)]
