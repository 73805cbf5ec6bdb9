"""Figures against alpha: differences, accuracy, logit norm, loss."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from softmax_gradient_tampering.studies.analysis.comparison import ArmResult, Results
from softmax_gradient_tampering.studies.analysis.measurements import ACCURACY, BY_KEY
from softmax_gradient_tampering.studies.report.figures.arm_styles import (
    BASELINE,
    TUNED,
    arm_styles,
    short,
)
from softmax_gradient_tampering.studies.report.figures.figure_block import FigureBlock, arm_legend
from softmax_gradient_tampering.studies.report.figures.svg import (
    INK,
    SERIES,
    WIDTH,
    Style,
    draw,
    set_log_scale,
)

MAX_DOTS = 60  # of an arm, on one line
MAX_POINTS = 1500  # of a scatter
MAX_ROWS = 16
TAMPERED = Style(SERIES[0], "s")
EQUIVALENT = Style(SERIES[1], "D", (1, 1.3), is_hollow=True)


@dataclass(frozen=True)
class _Point:
    """A mean and its interval's half-width at an alpha."""

    alpha: float
    mean: float
    half_width: float


def differences_figure(results: Results) -> FigureBlock | None:
    """The differences of every pair, with their means and intervals."""
    panels = []
    for other, what in ((results.baseline, "the baseline"), (results.tuned, "the tuned baseline")):
        if other is None:
            continue
        rows = [
            result
            for result in results.arms.values()
            if (comparison := result.comparison(other)) and comparison.num_pairs
        ]
        if rows:
            panels.append(_differences_panel(results, other, what, rows[:MAX_ROWS]))
    if not panels:
        return None
    interval = "confidence sequence" if results.study.is_sequential else "interval"
    caption = (
        "Each dot is a seed: the test accuracy of the arm less that of the reference, after the "
        f"last epoch. Beside it the mean and its 95 % {interval}. The grey band is the margin: "
        f"differences within ±{results.margin:g} points count as none."
    )
    return FigureBlock("differences", "Paired differences, seed by seed", caption, panels)


def accuracy_figure(results: Results) -> FigureBlock | None:
    """Train and test accuracy against alpha."""
    panels = [
        _alpha_panel(results, key) for key in ("train_acc", ACCURACY) if _has_alphas(results, key)
    ]
    caption = "Means over seeds after the last epoch, with 95 % intervals. " + _CONTROLS
    title = "Accuracy against alpha"
    return FigureBlock("alpha", title, caption, panels, _legend(results)) if panels else None


def logits_figure(results: Results) -> FigureBlock | None:
    """Logit norm and loss against alpha, and against each other."""
    keys = ("logit_norm", "eval_loss", "train_loss", "nll_alpha")
    panels = [_alpha_panel(results, key, is_log=True) for key in keys if _has_alphas(results, key)]
    caption = (
        "Means over seeds after the last epoch, with 95 % intervals; logarithmic axes where "
        "the values span more than a factor of three. The loss is the NLL of softmax(z), the "
        "ordinary cross-entropy; the last panel is that of softmax(alpha z). " + _CONTROLS
    )
    if _has_alphas(results, "logit_norm"):
        caption += " Thin line: the baseline's norm divided by alpha."
    title = "Logit norm and loss against alpha"
    return FigureBlock("logits", title, caption, panels, _legend(results)) if panels else None


def loss_norm_figure(results: Results) -> FigureBlock | None:
    """Test loss against logit norm, a point a run, with the regression line."""
    arms, norms, losses = [], [], []
    for result in results.arms.values():
        pairs = [
            (values["logit_norm"], values["eval_loss"])
            for values in result.values.values()
            if math.isfinite(values["logit_norm"]) and math.isfinite(values["eval_loss"])
        ]
        if pairs:
            arms.append(result)
            norms.append([norm for norm, _ in pairs])
            losses.append([loss for _, loss in pairs])
    all_norms, all_losses = (np.array(list(chain(*parts))) for parts in (norms, losses))
    if len(all_norms) < 3 or np.ptp(all_norms) == 0:
        return None

    from scipy import stats

    line = stats.linregress(all_norms, all_losses)
    panel = _scatter_panel(results, arms, norms, losses, (line.intercept, line.slope))
    caption = (
        "Each point is a run after its last epoch. Least-squares line over all runs: loss = "
        f"{line.intercept:.4g} {'+' if line.slope >= 0 else '−'} {abs(line.slope):.4g} · norm, "
        f"r² = {line.rvalue**2:.3f}. A smaller alpha stretches the logits, and a stretched wrong "
        "prediction costs more: this loss says little of accuracy, compare the NLL below."
    )
    title = "Test loss against logit norm"
    return FigureBlock("loss-norm", title, caption, [panel], arm_legend(results, arms))


_CONTROLS = (
    "Alpha 1 is the baseline. Equivalent arms stand at the alpha that they follow; the dashed "
    "line is the tuned baseline. Scheduled arms have no one alpha and are not shown."
)


def _differences_panel(
    results: Results, other: ArmResult, what: str, rows: Sequence[ArmResult]
) -> Markup:
    styles = arm_styles(results)

    def plot(axes: Axes) -> None:
        axes.axvspan(-results.margin, results.margin, color=INK, alpha=0.08, linewidth=0)
        axes.axvline(0, color=INK, linewidth=0.8)
        for place, result in enumerate(rows):
            comparison = result.comparison(other)
            assert comparison is not None
            style = styles[result.arm.name]
            dots = list(comparison.differences.values())[:MAX_DOTS]
            axes.plot(dots, [place + 0.17] * len(dots), linestyle="none", marker="o", alpha=0.5,
                      markersize=3.2, color=style.color, markeredgewidth=0)  # fmt: skip
            half = comparison.half_width if comparison.has_interval else None
            axes.errorbar([comparison.mean], [place - 0.15], xerr=half, capsize=2.5, elinewidth=1.4,
                          **style.line)  # fmt: skip
        axes.set_yticks(range(len(rows)), [short(result.arm.name) for result in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="difference in test accuracy (points)", title=f"arm less {what}")

    means = ", ".join(
        f"{result.arm.name} {comparison.mean:+.2f}"
        + (f" ± {comparison.half_width:.2f}" if comparison.has_interval else "")
        for result in rows
        if (comparison := result.comparison(other))
    )
    description = f"differences in test accuracy from {what}, in points, per arm: {means}"
    height = 0.75 + 0.34 * len(rows)
    return draw(plot, f"less-{'tuned' if other is results.tuned else 'baseline'}", description,
                WIDTH, height)  # fmt: skip


def _points(results: Results, kind: str, key: str) -> list[_Point]:
    """The points of a kind of arm, the baseline among the tampered ones, by alpha."""
    kinds = ("tampered", "baseline") if kind == "tampered" else (kind,)
    points = []
    for result in results.arms.values():
        spread = result.spreads.get(key)
        if result.arm.kind in kinds and spread is not None and spread.num_values:
            alpha = 1.0 if result.arm.kind == "baseline" else result.arm.alpha
            points.append(_Point(alpha, *spread.interval))
    return sorted((p for p in points if p.alpha > 0), key=lambda point: point.alpha)


def _has_alphas(results: Results, key: str) -> bool:
    return len({point.alpha for point in _points(results, "tampered", key)}) > 1


def _legend(results: Results) -> list[tuple[Style, str]]:
    kinds = {result.arm.kind for result in results.arms.values() if result.runs}
    legend = [(TAMPERED, "tampered, and the baseline at alpha 1")]
    if "equivalent" in kinds:
        legend.append((EQUIVALENT, "equivalent ordinary training"))
    if "tuned" in kinds:
        legend.append((TUNED, "tuned baseline"))
    return legend


def _alpha_panel(results: Results, key: str, is_log: bool = False) -> Markup:
    measurement = BY_KEY[key]
    unit = f" ({measurement.unit})" if measurement.unit else ""
    points = _points(results, "tampered", key)
    equivalent = _points(results, "equivalent", key)
    tuned = _points(results, "tuned", key)

    def plot(axes: Axes) -> None:
        if key == "logit_norm" and results.baseline is not None:
            norm = results.baseline.spreads[key].interval.mean
            ends = np.array([points[0].alpha, points[-1].alpha])
            axes.plot(ends, norm / ends, color=INK, linewidth=0.6, zorder=1)
        _draw_points(axes, points, TAMPERED, 1.0)
        _draw_points(axes, equivalent, EQUIVALENT, 1.06)  # beside, not under
        for point in tuned:
            axes.axhline(point.mean, color=TUNED.color, dashes=TUNED.dash, linewidth=1.1)
            if not math.isnan(point.half_width):
                axes.axhspan(point.mean - point.half_width, point.mean + point.half_width,
                             color=INK, alpha=0.07, linewidth=0)  # fmt: skip
        axes.set_xscale("log")
        _alpha_ticks(axes, sorted({point.alpha for point in points}))
        axes.set(xlabel="alpha (logarithmic)", title=measurement.label + unit)
        shown = [*points, *equivalent, *tuned]
        if is_log and all(p.mean - np.nan_to_num(p.half_width) > 0 for p in shown):
            set_log_scale(axes)
        elif measurement.unit == "%":  # intervals may end where no value can
            axes.set_ylim(top=min(axes.get_ylim()[1], 101.0))
        else:
            axes.set_ylim(bottom=max(axes.get_ylim()[0], 0.0))

    values = ", ".join(f"{p.mean:.4g} at alpha {p.alpha:g}" for p in points)
    return draw(plot, f"alpha-{key}", f"{measurement.label}{unit} against alpha: {values}")


def _draw_points(axes: Axes, points: Sequence[_Point], style: Style, shift: float) -> None:
    if points:
        alphas = [point.alpha * shift for point in points]
        halves = [0.0 if math.isnan(point.half_width) else point.half_width for point in points]
        axes.errorbar(alphas, [point.mean for point in points], yerr=halves, capsize=2.5,
                      elinewidth=1.0, zorder=3, **style.line)  # fmt: skip


def _alpha_ticks(axes: Axes, alphas: Sequence[float]) -> None:
    """Ticks at the alphas that were trained, as many as have room."""
    room = math.log(alphas[-1] / alphas[0]) / 9
    ticks = [alphas[-1]]
    for alpha in reversed(alphas[:-1]):
        if math.log(ticks[-1] / alpha) >= room:
            ticks.append(alpha)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _scatter_panel(
    results: Results,
    arms: Sequence[ArmResult],
    norms: Sequence[Sequence[float]],
    losses: Sequence[Sequence[float]],
    line: tuple[float, float],
) -> Markup:
    styles = arm_styles(results)
    stride = -(-sum(map(len, norms)) // MAX_POINTS)

    def plot(axes: Axes) -> None:
        for result, xs, ys in zip(arms, norms, losses, strict=True):
            style = styles.get(result.arm.name, BASELINE)
            keywords = style.line | {"linestyle": "none", "markersize": 4, "alpha": 0.75}
            axes.plot(xs[::stride], ys[::stride], **keywords)
        ends = np.array([min(map(min, norms)), max(map(max, norms))])
        axes.plot(ends, line[0] + line[1] * ends, color=INK, linewidth=0.9)
        axes.set(xlabel="logit norm", ylabel="test loss (nats)")

    description = (
        f"test loss in nats against logit norm, a point for each of {sum(map(len, norms))} runs, "
        f"with the regression line of slope {line[1]:.4g}"
    )
    return draw(plot, "loss-norm", description)
