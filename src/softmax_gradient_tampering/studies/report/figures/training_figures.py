"""Figures over the epochs: accuracy, loss, filter norms."""

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from softmax_gradient_tampering.studies.analysis.comparison import ArmResult, Results
from softmax_gradient_tampering.studies.analysis.curves import Curve, arm_curve
from softmax_gradient_tampering.studies.report.figures.arm_styles import (
    arm_styles,
    short,
    shown_arms,
)
from softmax_gradient_tampering.studies.report.figures.figure_block import FigureBlock, arm_legend
from softmax_gradient_tampering.studies.report.figures.svg import Style, draw, set_log_scale
from softmax_gradient_tampering.studies.results.filter_norms import read_filter_norms
from softmax_gradient_tampering.studies.results.summary import FloatArray

# A curve is drawn by at most this many epochs, so that a page of long runs stays small.
MAX_EPOCHS = 80
MIN_CUT_EPOCHS = 10  # shorter curves are shown from their first epoch
MAX_LAYERS = 6
MAX_FILTER_ARMS = 3
_PANELS = (
    ("eval_top1", "test accuracy (%)"),
    ("train_acc", "train accuracy (%)"),
    ("eval_loss", "test loss (nats)"),
    ("train_loss", "train loss (nats)"),
)


def curves_figure(results: Results) -> FigureBlock | None:
    """Accuracy and loss over the epochs; None where there was one epoch."""
    arms = shown_arms(results)
    panels = []
    for column, label in _PANELS:
        found = {r.arm.name: arm_curve(list(r.runs.values()), column) for r in arms}
        curves = {name: curve for name, curve in found.items() if curve is not None}
        if curves and max(len(curve.epochs) for curve in curves.values()) > 1:
            panels.append(_curve_panel(results, column, label, curves))
    if not panels:
        return None
    several = any(len(result.runs) > 1 for result in arms)
    band = "Means over seeds with bands of their 95 % intervals. " if several else ""
    left_out = sum(bool(r.runs) for r in results.arms.values()) - len(arms)
    longest = max(len(run.curves["epoch"]) for result in arms for run in result.runs.values())
    cut = "The accuracy axes are fitted to the epochs after the first three tenths. " * (
        longest >= MIN_CUT_EPOCHS
    )
    caption = (
        f"{band}{cut}The loss axes are logarithmic where the losses span more than a factor of "
        "three. The loss is the ordinary cross-entropy of softmax(z) at every alpha."
        + (f" {left_out} further arms are in the CSV files." if left_out else "")
    )
    return FigureBlock(
        "curves", "Accuracy and loss over the epochs", caption, tuple(panels),
        arm_legend(results, arms),
    )  # fmt: skip


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
            if len(found) > 1:
                norms[result.arm.name] = found
                arms.append(result)
                break
    layers = list(next(iter(norms.values()), {}))[1:]
    if not layers:
        return None, problems
    shown = [layers[index] for index in _evenly(len(layers), MAX_LAYERS)]
    panels = tuple(_norms_panel(results, n, layer, norms) for n, layer in enumerate(shown))
    caption = (
        "The l2 norms of the filters of one run of each arm, that of its first seed: median, "
        "and a band from the 10th to the 90th percentile of the layer's filters."
        + (f" {len(shown)} of {len(layers)} layers." if len(shown) < len(layers) else "")
    )
    block = FigureBlock(
        "filters", "Filter norms over the epochs", caption, panels, arm_legend(results, arms)
    )
    return block, problems


def _with_filters(results: Results) -> list[ArmResult]:
    """The baseline and some tampered arms: bands of more of them hide each other."""
    shown = shown_arms(results)
    tampered = [result for result in shown if result.arm.kind == "tampered"]
    first = [result for result in shown if result is results.baseline]
    return first + [tampered[index] for index in _evenly(len(tampered), MAX_FILTER_ARMS)]


def _curve_panel(results: Results, column: str, label: str, curves: dict[str, Curve]) -> Markup:
    styles = arm_styles(results)
    is_loss = column.endswith("loss")

    def plot(axes: Axes) -> None:
        for number, (name, curve) in enumerate(curves.items()):
            _draw_curve(axes, curve, styles[name], number)
        axes.set(xlabel="epoch", title=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(left=0.5)  # epochs count from 1
        if is_loss and all((curve.mean > 0).all() for curve in curves.values()):
            set_log_scale(axes)
        elif not is_loss:
            axes.set_ylim(*_accuracy_limits(list(curves.values())))

    ends = ", ".join(f"{name} {curve.mean[-1]:.4g}" for name, curve in curves.items())
    return draw(plot, column, f"{label} over the epochs; after the last epoch: {ends}")


def _draw_curve(axes: Axes, curve: Curve, style: Style, number: int) -> None:
    kept = np.unique(np.linspace(0, len(curve.epochs) - 1, MAX_EPOCHS).astype(int))
    epochs, mean, half = curve.epochs[kept], curve.mean[kept], curve.half_width[kept]
    every = max(1, len(kept) // 5)
    axes.plot(epochs, mean, markevery=(min(number, every - 1), every), zorder=3, **style.line)
    has_band = np.isfinite(half) & (half > 0)
    if has_band.any():
        floor = mean / 4 if (mean > 0).all() else mean - half
        low = np.maximum(mean - half, np.minimum(floor, mean))  # a log axis needs it above 0
        axes.fill_between(epochs, low, mean + half, where=has_band, color=style.color,
                          alpha=0.15, linewidth=0)  # fmt: skip


def _accuracy_limits(curves: Sequence[Curve]) -> tuple[float, float]:
    lows, highs = [], []
    for curve in curves:
        half = np.nan_to_num(curve.half_width)
        length = len(curve.mean)
        start = math.ceil(0.3 * length) if length >= MIN_CUT_EPOCHS else 0
        lows.append(float((curve.mean - half)[start:].min()))
        highs.append(float((curve.mean + half)[start:].max()))
    margin = 0.06 * max(max(highs) - min(lows), 0.5)
    low, high = max(0.0, min(lows) - margin), max(highs) + margin
    return low, min(high, 100 + 0.02 * (100 - low))  # intervals may end where no accuracy can


def _norms_panel(
    results: Results, number: int, layer: str, norms: dict[str, dict[str, FloatArray]]
) -> Markup:
    styles = arm_styles(results)
    present = {name: arrays for name, arrays in norms.items() if layer in arrays}

    def plot(axes: Axes) -> None:
        for index, (name, arrays) in enumerate(present.items()):
            kept = np.unique(np.linspace(0, len(arrays["epochs"]) - 1, MAX_EPOCHS).astype(int))
            epochs = arrays["epochs"][kept]
            low, middle, high = np.nanpercentile(arrays[layer][kept], (10, 50, 90), axis=1)
            every = max(1, len(kept) // 5)
            axes.plot(epochs, middle, markevery=(min(index, every - 1), every), zorder=3,
                      **styles[name].line)  # fmt: skip
            axes.fill_between(epochs, low, high, color=styles[name].color, alpha=0.12, linewidth=0)
        axes.set(xlabel="epoch", ylabel="filter norm", title=short(layer))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)

    ends = ", ".join(
        f"{name} {np.nanmedian(arrays[layer][-1]):.3g}" for name, arrays in present.items()
    )
    description = f"filter norms of {layer} over the epochs; medians after the last: {ends}"
    return draw(plot, f"filters{number}", description)


def _evenly(length: int, number: int) -> list[int]:
    """At most `number` indices from first to last, evenly spaced."""
    if length <= number:
        return list(range(length))
    return [round(k * (length - 1) / (number - 1)) for k in range(number)]
