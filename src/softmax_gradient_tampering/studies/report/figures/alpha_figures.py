"""Figures against alpha: accuracy, logit norm, loss; and loss against logit norm."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from softmax_gradient_tampering.studies.analysis.comparison import ArmResult, Results
from softmax_gradient_tampering.studies.analysis.measurements import (
    ACCURACY,
    Measurement,
    measurement_of,
)
from softmax_gradient_tampering.studies.report.figures.arm_styles import (
    TUNED,
    arm_styles,
    shown_arms,
)
from softmax_gradient_tampering.studies.report.figures.chart import Axis, Chart, Panel, numbers
from softmax_gradient_tampering.studies.report.figures.figure_block import FigureBlock, arm_legend
from softmax_gradient_tampering.studies.report.figures.scale import Scale, linear, logarithmic
from softmax_gradient_tampering.studies.report.figures.style import INK, Style
from softmax_gradient_tampering.studies.report.wording import number

MAX_POINTS = 1500  # of a scatter
TAMPERED = Style(1, "square")
EQUIVALENT = Style(2, "diamond", (1, 1.3), is_hollow=True)


@dataclass(frozen=True)
class _Point:
    """A mean and its interval's half-width at an alpha."""

    alpha: float
    mean: float
    half_width: float

    @property
    def ends(self) -> tuple[float, float]:
        half = 0.0 if math.isnan(self.half_width) else self.half_width
        return self.mean - half, self.mean + half


def accuracy_figure(results: Results) -> FigureBlock | None:
    """Train and test accuracy against alpha."""
    panels = [
        _alpha_panel(results, key)
        for key in dict.fromkeys(("train_acc", ACCURACY, results.metric.key))
        if _has_alphas(results, key)
    ]
    shown = _who_is_shown(results)
    caption = f"Means over seeds after the last epoch, with 95 % intervals. {shown}"
    title = "Accuracy against alpha"
    return FigureBlock("alpha", title, caption, panels, _legend(results)) if panels else None


def logits_figure(results: Results) -> FigureBlock | None:
    """Logit norm and loss against alpha."""
    keys = ("logit_norm", "eval_loss", "train_loss", "nll_alpha")
    panels = [_alpha_panel(results, key, is_log=True) for key in keys if _has_alphas(results, key)]
    caption = (
        "Means over seeds after the last epoch, with 95 % intervals; logarithmic axes where "
        "the values span more than a factor of three. The loss is the NLL of softmax(z), the "
        "ordinary cross-entropy; the last panel is that of softmax(alpha z). "
        + _who_is_shown(results)
    )
    if _has_alphas(results, "logit_norm"):
        caption += " Thin line: the baseline's norm divided by alpha."
    title = "Logit norm and loss against alpha"
    return FigureBlock("logits", title, caption, panels, _legend(results)) if panels else None


def loss_norm_figure(results: Results) -> FigureBlock | None:
    """Test loss against logit norm, a point a run."""
    points = {
        result.arm.name: [
            (values["logit_norm"], values["eval_loss"])
            for values in result.values.values()
            if math.isfinite(values["logit_norm"]) and math.isfinite(values["eval_loss"])
        ]
        for result in shown_arms(results)
    }
    everything = [point for found in points.values() for point in found]
    if len(everything) < 3 or len(set(everything)) == 1:
        return None
    arms = [result for result in results.arms.values() if points.get(result.arm.name)]
    caption = (
        "Each point is a run after its last epoch. The runs of an arm lie together, and what sets "
        "the groups apart is the arm: no line is fitted across them. A smaller alpha stretches "
        "the logits, and a stretched wrong prediction costs more: this loss says little of "
        "accuracy, compare the NLL below."
    )
    panel = _scatter_panel(results, points, len(everything))
    title = "Test loss against logit norm"
    return FigureBlock("loss-norm", title, caption, [panel], arm_legend(results, arms))


def _who_is_shown(results: Results) -> str:
    """Which arms a figure has, of the kinds that there are, and where."""
    kinds = {result.arm.kind for result in results.arms.values()}
    words = {
        "equivalent": " Equivalent arms stand at the alpha that they follow.",
        "tuned": " The dashed line is the tuned baseline.",
        "scheduled": " Scheduled arms have no one alpha, and are left out.",
    }
    found = (text for kind, text in words.items() if kind in kinds)
    return "Arms that differ from the baseline in alpha alone." + "".join(found)


def _points(results: Results, kind: str, key: str) -> list[_Point]:
    """The points of a kind of arm, the baseline among the tampered ones, by alpha."""
    kinds = ("tampered", "baseline") if kind == "tampered" else (kind,)
    others = {r.arm.name for r in results.arms.values() if not _differs_in_alpha_alone(results, r)}
    points = []
    for name, result in results.arms.items():
        spread = result.spreads.get(key)
        if others.intersection((name, result.arm.follows)) or result.arm.kind not in kinds:
            continue
        if spread is not None and spread.num_values:
            points.append(_Point(result.arm.alpha, *spread.interval))
    return sorted((p for p in points if p.alpha > 0), key=lambda point: point.alpha)


def _differs_in_alpha_alone(results: Results, result: ArmResult) -> bool:
    """Whether an arm may stand on the line of alphas; one with other flags does not."""
    if result.arm.kind != "tampered" or results.baseline is None:
        return True
    return result.arm.other_flags == results.baseline.arm.other_flags


def _has_alphas(results: Results, key: str) -> bool:
    return len({point.alpha for point in _points(results, "tampered", key)}) > 1


def _legend(results: Results) -> list[tuple[Style, str]]:
    kinds = {result.arm.kind for result in results.arms.values() if result.runs}
    baseline = 1.0 if results.baseline is None else results.baseline.arm.alpha
    legend = [(TAMPERED, f"tampered, and the baseline at alpha {baseline:g}")]
    if "equivalent" in kinds:
        legend.append((EQUIVALENT, "equivalent ordinary training"))
    if "tuned" in kinds:
        legend.append((TUNED, "tuned baseline"))
    return legend


def _alpha_panel(results: Results, key: str, is_log: bool = False) -> Panel:
    measurement = measurement_of(key)
    unit = f" ({measurement.unit})" if measurement.unit else ""
    points = _points(results, "tampered", key)
    equivalent = _points(results, "equivalent", key)
    tuned = _points(results, "tuned", key)
    alphas = sorted({point.alpha for point in points})
    x = _alpha_axis(alphas)
    y = _value_scale([*points, *equivalent, *tuned], measurement, is_log)
    chart = Chart(measurement.label + unit, x, numbers(y, ""))
    if key == "logit_norm" and results.baseline is not None:
        norm = results.baseline.arm.alpha * results.baseline.spreads[key].interval.mean
        chart.line(alphas, [norm / alpha for alpha in alphas], Style(INK, "circle", (1, 2)))
    for point in tuned:
        ends = [x.scale.low, x.scale.high]
        chart.line(ends, [point.mean] * 2, TUNED, f"tuned {_value(point, measurement)}")
        if not math.isnan(point.half_width):
            low, high = point.ends
            chart.band(ends, [low, low], [high, high], TUNED)
    _draw_points(chart, points, TAMPERED, "alpha", measurement)
    _draw_points(chart, equivalent, EQUIVALENT, "equivalent to", measurement)
    values = ", ".join(f"{p.mean:.4g} at alpha {p.alpha:g}" for p in points)
    return chart.panel(f"{measurement.label}{unit} against alpha: {values}")


def _draw_points(
    chart: Chart, points: Sequence[_Point], style: Style, what: str, measurement: Measurement
) -> None:
    """The points of a kind of arm; equivalent ones beside the tampered ones, not on them."""
    if not points:
        return
    shift = 1.0 if style is TAMPERED else 1.06
    alphas, means = [point.alpha * shift for point in points], [point.mean for point in points]
    chart.line(alphas, means, style)
    chart.intervals(alphas, means, [point.half_width for point in points], style)
    titles = [f"{what} {point.alpha:g}: {_value(point, measurement)}" for point in points]
    chart.marks(alphas, means, style, titles)


def _value(point: _Point, measurement: Measurement) -> str:
    half = "" if math.isnan(point.half_width) else f" ± {number(point.half_width, 4)}"
    return f"{number(point.mean, 4)}{half} {measurement.unit}".rstrip()


def _value_scale(points: Sequence[_Point], measurement: Measurement, is_log: bool) -> Scale:
    ends = [end for point in points for end in point.ends]
    if is_log and min(ends) > 0:
        return logarithmic(ends)
    scale = linear(ends)
    if measurement.unit == "%":  # intervals may end where no value can
        return Scale(scale.low, min(scale.high, 101.0))
    return Scale(max(scale.low, 0.0), scale.high)


def _alpha_axis(alphas: Sequence[float]) -> Axis:
    """A logarithmic axis with the alphas that were trained, as many as have room."""
    span = alphas[-1] / alphas[0]
    scale = Scale(alphas[0] / span**0.06, alphas[-1] * span**0.06, is_log=True)
    ticks = [alphas[-1]]
    for alpha in reversed(alphas[:-1]):
        if math.log(ticks[-1] / alpha) >= math.log(span) / 7:
            ticks.append(alpha)
    return Axis(scale, "alpha (logarithmic)", [(alpha, f"{alpha:.3g}") for alpha in ticks])


def _scatter_panel(
    results: Results, points: dict[str, list[tuple[float, float]]], num_points: int
) -> Panel:
    styles = arm_styles(results)
    stride = -(-num_points // MAX_POINTS)
    everything = [point for found in points.values() for point in found]
    x = numbers(linear(norm for norm, _ in everything), "logit norm")
    y = numbers(linear(loss for _, loss in everything), "")
    chart = Chart("test loss (nats)", x, y)
    for name, found in points.items():
        shown = found[::stride]
        titles = [f"{name}: norm {norm:.4g}, loss {loss:.4g}" for norm, loss in shown]
        norms, losses = [norm for norm, _ in shown], [loss for _, loss in shown]
        many = num_points > MAX_POINTS // 5
        chart.marks(norms, losses, styles[name], [] if many else titles, is_pale=True)
    return chart.panel(
        f"test loss in nats against logit norm, a point for each of {num_points} runs"
    )
