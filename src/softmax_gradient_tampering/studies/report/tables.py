"""The report's tables."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from softmax_gradient_tampering.studies.analysis.comparison import ArmResult, Results
from softmax_gradient_tampering.studies.analysis.measurements import ACCURACY, BY_KEY, Measurement
from softmax_gradient_tampering.studies.analysis.verdict import Comparison
from softmax_gradient_tampering.studies.plan.plan import State
from softmax_gradient_tampering.studies.report.markup import Markup, element, join
from softmax_gradient_tampering.studies.report.wording import number, p_value
from softmax_gradient_tampering.studies.results.run_files import as_number
from softmax_gradient_tampering.training.records.run_files import NOT_HASHED

MAX_CELL_ROWS = 60
# Not a difference of the training, or one that every pair of runs has.
_NOT_COMPARED = {"seed", *NOT_HASHED}
WORDS = {
    "arm",
    "verdict",
    "measurement",
    "setting",
    "settings",
    "value",
    "state",
    "folder",
    "reason",
}
_DIFFERENCE_GROUPS = (("difference", 2), ("p", 4))


def table(
    head: Sequence[str],
    rows: Iterable[Markup],
    caption: str,
    name: str,
    groups: Sequence[tuple[str, int]] = (),
) -> Markup:
    """A table that scrolls sideways where it is wider than the page.

    Args:
        head: the columns' headings; those of WORDS stand above words, the others above numbers.
        rows: <tr> elements.
        caption: what the table shows.
        name: its id.
        groups: headings above the headings, and how many columns each spans.
    """
    columns = [
        element("th", cell, scope="col", class_=None if cell in WORDS else "num") for cell in head
    ]
    above = [
        element("th", label, colspan=span, scope="colgroup" if label else None)
        for label, span in groups
    ]
    header = element(
        "thead",
        element("tr", *above, class_="groups") if above else None,
        element("tr", *columns),
    )
    body = element("table", header, element("tbody", *rows), id=name, aria_labelledby=f"{name}-of")
    return join(
        element("p", caption, class_="caption", id=f"{name}-of"),
        element("div", body, class_="scroll", tabindex="0", role="region", aria_label=caption),
    )


def row(label: object, *cells: object, class_: str | None = None) -> Markup:
    """A row of a table: its heading and its cells, <td> elements or texts."""
    heading = element("th", label, scope="row")
    body = [cell if _is_cell(cell) else element("td", cell) for cell in cells]
    return element("tr", heading, *body, class_=class_)


def result_table(results: Results) -> Markup:
    """The arms, their accuracies, and their differences from the baseline."""
    other = results.baseline
    head = ["arm", "alpha", "seeds", "train (%)", "test (%)"]
    groups = [("", 3), ("accuracy", 2)]
    if other is not None:
        head += _difference_head(results)
        groups += _DIFFERENCE_GROUPS
    rows = []
    for name, result in results.arms.items():
        cells = [
            _alpha(result),
            _numeric(f"{len(result.runs)}/{result.num_planned}"),
            _mean(result, "train_acc"),
            _mean(result, ACCURACY),
        ]
        if other is not None:
            cells += _difference_cells(result, other)
        rows.append(row(name, *cells, class_="reference" if result is other else None))
    caption = "Accuracy after the last epoch: mean ± half the 95 % interval over seeds."
    if other is not None:
        caption += f" Differences are from {other.arm.name}, paired by seed."
        if any(_has_no_spread(result.comparison(other)) for result in results.arms.values()):
            caption += (
                f" Where all pairs differ by the same there is no {_test(results)} and no interval "
                "to trust; Holm's p is then of the permutation test."
            )
        if results.study.is_sequential:
            caption += (
                " The intervals of the differences are a confidence sequence's; those of the "
                "accuracies are Student's, which take the number of seeds as fixed."
            )
    return table(head, rows, caption, "results", groups)


def tuned_table(results: Results) -> Markup | None:
    """The differences from the tuned baseline; None without one."""
    tuned = results.tuned
    if tuned is None:
        return None
    rows = [
        row(name, *_difference_cells(result, tuned))
        for name, result in results.arms.items()
        if result is not tuned and result.runs
    ]
    caption = f"Test accuracy less that of the tuned baseline, {tuned.arm.name}, paired by seed."
    groups = [("", 1), *_DIFFERENCE_GROUPS]
    return table(["arm", *_difference_head(results)], rows, caption, "against-tuned", groups)


def selection_table(results: Results) -> Markup | None:
    """What the tuned baseline was selected from; None if nothing is recorded."""
    arm = next((r.arm for r in results.arms.values() if r.arm.kind == "tuned"), None)
    selection = arm.selection if arm is not None else None
    entries = selection.get("table") if selection is not None else None
    if not isinstance(entries, list) or selection is None:
        return None
    rows = []
    for entry in entries:
        if isinstance(entry, Mapping):
            chosen = entry.get("overrides") == selection.get("chosen")
            score = entry.get("mean_top1")
            shown = number(as_number(score), 2)
            label = join(_text(entry.get("overrides")), " (chosen)" if chosen else None)
            loss = number(as_number(entry.get("mean_loss")), 4)
            runs = _numeric(_text(entry.get("n")))
            rows.append(row(label, _numeric(shown), _numeric(loss), runs))
    metric = _text(selection.get("metric", "top1"))
    caption = (
        f"How the tuned baseline's settings were chosen: by the mean of {metric}; of two that are "
        "equal, by the lower mean loss."
    )
    return table(["settings", "mean (%)", "loss (nats)", "runs"], rows, caption, "selection")


def calibration_table(results: Results) -> Markup | None:
    """Calibration of every arm at the three scales of the logits; None if not measured."""
    keys = [
        f"{name}_{scale}" for name in ("ece", "nll") for scale in ("plain", "alpha", "held_out")
    ]
    keys = [key for key in [*keys, "factor"] if key in results.keys]
    if len(keys) < 2:
        return None
    rows = [
        row(name, *(_mean(result, key) for key in keys))
        for name, result in results.arms.items()
        if result.runs
    ]
    labels = {"plain": "softmax(z)", "alpha": "softmax(αz)", "held_out": "softmax(sz)"}
    head = [labels.get(key.partition("_")[2], "fitted") for key in keys]
    groups = [("", 1)]
    for name, label in (("ece", "ECE, 15 bins (%)"), ("nll", "NLL (nats)"), ("factor", "s")):
        span = sum(key.startswith(name) for key in keys)
        groups += [(label, span)] if span else []
    caption = (
        "Calibration on the test set after the last epoch. z are the logits, α is the arm's alpha."
    )
    if "factor" in keys:
        caption += " s is fitted by NLL on each half of the test set, measured on the other half."
    return table(["arm", *head], rows, caption, "calibration", groups)


def measurement_table(results: Results) -> Markup:
    """Every measurement of every arm."""
    arms = [result for result in results.arms.values() if result.runs]
    rows, group = [], None
    for key in results.keys:
        measurement = BY_KEY[key]
        if measurement.group != group:
            group = measurement.group
            heading = element("th", group, colspan=len(arms) + 1, scope="colgroup")
            rows.append(element("tr", heading, class_="group"))
        rows.append(row(_label(measurement), *(_mean(result, key) for result in arms)))
    single = results.study.kind != "study"
    caption = (
        "Every measurement after the last epoch."
        if single
        else "Every measurement after the last epoch: mean ± half the 95 % interval over seeds, "
        "and the number of seeds where not all have it."
    )
    head = ["measurement", *("value" if single else result.arm.name for result in arms)]
    return table(head, rows, caption, "measurements")


def cell_table(results: Results) -> Markup | None:
    """The cells that are not finished; None if all are."""
    records = [each for each in results.study.cells if each.state is not State.FINISHED]
    if not records:
        return None
    rows = [
        row(
            each.cell.arm,
            _numeric(each.cell.seed),
            each.state,
            element("code", each.cell.id),
            each.reason or "–",
        )
        for each in records[:MAX_CELL_ROWS]
    ]
    more = f" {len(records) - MAX_CELL_ROWS} more are in the CSV file of the runs." * (
        len(records) > MAX_CELL_ROWS
    )
    caption = f"Cells that are not finished, and are in no number of this report.{more}"
    return table(["arm", "seed", "state", "folder", "reason"], rows, caption, "cells")


def configuration_table(results: Results) -> Markup | None:
    """The settings that differ between arms; None if none does."""
    arms = {
        name: [run.args for run in result.runs.values()]
        for name, result in [*results.arms.items(), *results.tuning.items()]
        if any(run.args for run in result.runs.values())
    }
    keys = sorted({key for configs in arms.values() for args in configs for key in args})
    rows = []
    for key in keys:
        shown = {
            name: _distinct(args.get(key) for args in configs) for name, configs in arms.items()
        }
        if key not in _NOT_COMPARED and len(set(shown.values())) > 1:
            rows.append(row(element("code", key), *(_numeric(text) for text in shown.values())))
    if len(arms) < 2 or not rows:
        return None
    caption = "Settings that differ between arms, as the runs recorded them in args.yaml."
    return table(["setting", *arms], rows, caption, "configuration")


def environment_table(results: Results) -> Markup | None:
    """Where the runs were trained; None if it is not recorded."""
    environments = [each.run.environment for each in results.study.cells if each.run is not None]
    flat = [_flat(environment) for environment in environments if environment]
    names = list(dict.fromkeys(name for environment in flat for name in environment))
    rows = [
        row(name, _distinct((environment.get(name) for environment in flat), counted=True))
        for name in names
        if name != "command"
    ]
    if not rows:
        return None
    return table(["setting", "value"], rows, "Where the runs were trained.", "environment")


def _difference_cells(result: ArmResult, other: ArmResult) -> list[Markup]:
    comparison = result.comparison(other)
    if result is other:
        return [element("td", "the reference", colspan=6, class_="dim")]
    if comparison is None or comparison.num_pairs == 0:
        return [element("td", "no pairs", colspan=6, class_="dim")]
    source = f"differences|{result.arm.name}|{other.arm.name}|{ACCURACY}"
    half_width = comparison.half_width if comparison.has_interval else math.nan
    permutation = p_value(comparison.p_permutation) + ("" if comparison.is_exact else "*")
    return [
        _plus_minus(comparison.mean, half_width, 2, source, "difference", sign=True),
        element("td", _verdict(comparison), class_="verdict"),
        _numeric(p_value(comparison.p_holm), f"{source}|p_holm"),
        _first_test(comparison, source),
        _numeric(p_value(comparison.p_sign), f"{source}|p_sign"),
        _numeric(permutation, f"{source}|p_permutation"),
    ]


def _test(results: Results) -> str:
    """The test that the verdicts rest on, in the table's words."""
    return "1 / E" if results.study.is_sequential else "t test"


def _difference_head(results: Results) -> tuple[str, ...]:
    return ("points", "verdict", "Holm", _test(results), "sign", "permutation")


def _first_test(comparison: Comparison, source: str) -> Markup:
    """The p of the t test, or 1 / E of a sequence; a dash without any spread."""
    if comparison.sd == 0:
        return _numeric("–")
    if comparison.is_sequential:
        return _numeric(p_value(comparison.p_anytime), f"{source}|p_anytime")
    return _numeric(p_value(comparison.p_t), f"{source}|p_t")


def _has_no_spread(comparison: Comparison | None) -> bool:
    return comparison is not None and comparison.num_pairs > 1 and comparison.sd == 0


def _verdict(comparison: Comparison) -> object:
    if comparison.verdict is None:
        return element("span", "control", class_="dim")
    marks = {
        "helps": "▲",
        "suggests a gain": "△",
        "hurts": "▼",
        "suggests harm": "▽",
        "diverges": "✕",
        "no difference": "=",
        "inconclusive": "?",
    }
    mark = element("span", marks[comparison.verdict], aria_hidden="true")
    return join(mark, " ", comparison.verdict)


def _mean(result: ArmResult, key: str) -> Markup:
    spread = result.spreads.get(key)
    if spread is None:
        return element("td", "–", class_="num dim")
    source = f"arms|{result.arm.name}|{key}"
    if spread.num_values == 0:
        return element("td", "not finite", class_="num")
    mean, half = spread.interval
    note = f" (n={spread.num_values})" if spread.num_values < len(result.runs) else ""
    return _plus_minus(mean, half, BY_KEY[key].digits, source, "mean", note)


def _plus_minus(
    mean: float,
    half: float,
    digits: int,
    source: str,
    name: str,
    note: str = "",
    sign: bool = False,
) -> Markup:
    """A mean ± half-width; data-source names the row and column of the CSV file."""
    text = number(mean, digits, sign)
    if not math.isnan(half):
        text += f" ± {number(half, digits)}"
    return _numeric(text + note, f"{source}|{name}")


def _numeric(text: object, source: str | None = None) -> Markup:
    return element("td", text, class_="num", data_source=source)


def _alpha(result: ArmResult) -> Markup:
    arm = result.arm
    if arm.kind == "scheduled" and arm.alpha_end is not None:
        return _numeric(f"{arm.alpha:g} → {arm.alpha_end:g}, {arm.alpha_schedule}")
    if arm.kind == "equivalent":
        return _numeric(f"1, follows {arm.alpha:g}")
    return _numeric(f"{arm.alpha:g}")


def _label(measurement: Measurement) -> str:
    return f"{measurement.label} ({measurement.unit})" if measurement.unit else measurement.label


def _distinct(values: Iterable[Any], counted: bool = False) -> str:
    """The distinct values as one text, with how often each occurs where there are several."""
    counts: dict[str, int] = {}
    for value in values:
        text = _text(value)
        counts[text] = counts.get(text, 0) + 1
    if len(counts) == 1 or not counted:
        shown = list(counts)[:4]
        return ", ".join(shown) + (" …" if len(counts) > 4 else "")
    return "; ".join(f"{text} ({count} runs)" for text, count in list(counts.items())[:8])


def _text(value: Any) -> str:
    """A value of a JSON or YAML file as text."""
    if isinstance(value, str):
        return value or "''"
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(entry)}" for name, entry in value.items())
    return json.dumps(value, default=str)


def _flat(environment: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in environment.items():
        if isinstance(value, Mapping):
            flat |= {str(inner): entry for inner, entry in value.items()}
        else:
            flat[str(name).replace("_", " ")] = value
    return flat


def _is_cell(cell: object) -> bool:
    return isinstance(cell, Markup) and cell.startswith("<td")
