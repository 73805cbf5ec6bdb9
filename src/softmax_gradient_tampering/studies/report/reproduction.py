"""A published row in words: what would be trained for it, and what was published and found."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.recipes.catalogue import (
    Row,
    batch_size_of,
    find_row,
    margin_of,
    published_figures,
    published_gain,
    recipe_path,
)
from softmax_gradient_tampering.studies.analysis.comparison import (
    ArmResult,
    Results,
    compare_arms,
)
from softmax_gradient_tampering.studies.analysis.measurements import ACCURACY
from softmax_gradient_tampering.studies.plan.plan import Plan
from softmax_gradient_tampering.studies.plan.reproduction import Reproduction
from softmax_gradient_tampering.studies.report.text import plan_text, results_text
from softmax_gradient_tampering.studies.report.wording import arm_sentence, number, plural
from softmax_gradient_tampering.studies.results.collect import collect_tables
from softmax_gradient_tampering.studies.results.study_folder import open_study
from softmax_gradient_tampering.training.config.arguments import load_config, to_mapping
from softmax_gradient_tampering.training.config.fields import NOT_RECORDED, Config
from softmax_gradient_tampering.training.records.run_files import NOT_HASHED

HEAD = (
    *("row", "published, alpha 1", "published, alpha", "published gain"),
    *("ours, alpha 1", "ours, alpha", "ours, gain", "equivalent's gain", "gain over tuned"),
    "verdict",
)
_NUM_CLASSES = 1000  # of ImageNet, on which all rows were published
_NOT_RUN = ("–", "–", "–", "–", "–", "not run")
# What differs from the recipe by design: the arms' own, the seed, where the data are, how a step
# is divided, the shared precision, what is measured. The published command loads with DALI.
_BY_DESIGN = {
    *("modify_softmax", "equivalent_to", "seed", "data_dir", "dali", "dali_gpu"),
    *("batch_size", "grad_accum_steps", "amp", "native_amp", "amp_dtype"),
    *("logit_stats", "filter_norms", *NOT_HASHED, *NOT_RECORDED),
}


def describe(asked: Reproduction) -> str:
    """What would be trained, before anything is."""
    assert asked.request is not None
    assert asked.config is not None
    plan, config = asked.request.plan, asked.config
    figures = [published_figures(name) for name in (asked.row.baseline, *asked.row.tampered)]
    shown = ", ".join(f"{each.test_accuracy:.3f} % at alpha {each.alpha:g}" for each in figures)
    control = f"no equivalent: {asked.missing_control}" if asked.missing_control else "as below"
    lines = [
        f"Row:       {', '.join(asked.row.tampered)}, beside {asked.row.baseline}",
        f"Published: {shown}; one run each ({figures[0].source})",
        f"Each run:  {_step(plan, config)}; {plural(config.epochs, 'epoch')} and "
        f"{config.cooldown_epochs} of cool-down",
        f"Precision: {_precision(plan.config)} in all arms; published in float16, which has no "
        "equivalent control",
        f"Controls:  {control}",
        *(f"Changed:   {text}" for text in departures(asked.row, plan, _count_folders(config))),
        *dict.fromkeys(f"Note:      {each.note}" for each in figures if each.note),
        f"Study:     {asked.path}, {plural(len(plan.unique_cells()), 'run')}"
        + " and those of the tuned baseline" * any(arm.is_waiting for arm in plan.arms),
    ]
    return "\n".join([*lines, "", plan_text(plan)])


def report_row(row: Row, path: Path) -> str:
    """What a study shows of a row: its first sentence and table, and the row for the page.

    Differences within the smallest published gain count as none: what lies within it is less
    than what was published.

    Raises:
        UserError: there is no study.
    """
    plan = open_study(path).plan
    results = compare_arms(collect_tables(path), margin_of(row), only_metric=True)
    changed = departures(row, plan, len(results.study.class_names))
    lines = [_line(HEAD), _rule(), *(_found(name, results, changed) for name in row.tampered)]
    return "\n".join([results_text(results), "", *lines, "", f"Report:  sgt report {path}"])


def unreported_row(name: str) -> str:
    """The row of the page before anyone has trained it."""
    return _line((*_published(name), *_NOT_RUN))


def departures(row: Row, plan: Plan, num_classes: int = 0) -> list[str]:
    """In what a study differs from the published settings, beside what every such study does.

    Args:
        row: the recipes that are compared.
        plan: of the study.
        num_classes: of its data; 0 where that is not known.
    """
    recipe = to_mapping(load_config(recipe_path(row.baseline)))
    of_process = batch_size_of(row.baseline)
    published = published_figures(row.baseline).processes * of_process
    found = []
    if num_classes not in (0, _NUM_CLASSES):
        found.append(f"data of {num_classes} classes (published: {_NUM_CLASSES})")
    if _samples(plan) != published:
        found.append(f"{_samples(plan)} samples a step (published: {published})")
    if plan.config["batch_size"] != of_process:  # batch normalisation sees that many
        found.append(f"batches of {plan.config['batch_size']} a process (published: {of_process})")
    if plan.config["amp_dtype"] is None:
        found.append(f"{_precision(plan.config)} (published: float16)")
    changed = (name for name in recipe if name not in _BY_DESIGN)
    return found + [
        f"{name} {_shown(plan.config.get(name))} (published: {_shown(recipe[name])})"
        for name in changed
        if plan.config.get(name) != recipe[name]
    ]


def _count_folders(config: Config) -> int:
    """The folders of classes in DIR/train; 0 where there is no such folder."""
    try:
        entries = list(os.scandir(Path(config.data_dir or "") / "train"))
    except OSError:
        return 0
    return sum(entry.is_dir() and not entry.name.startswith(".") for entry in entries)


def _samples(plan: Plan) -> int:
    """Of an optimizer step, over all processes and accumulated batches."""
    number = plan.config["batch_size"] * plan.config["grad_accum_steps"]
    return int(plan.processes_per_run * number)


def _shown(value: Any) -> str:
    if value in (None, ""):
        return "not set"
    return f"{value:g}" if isinstance(value, float) else f"{value}"


def _step(plan: Plan, config: Config) -> str:
    one = plan.processes_per_run == 1
    accumulated = f", {config.grad_accum_steps} batches a step" * (config.grad_accum_steps > 1)
    return (
        f"{plan.processes_per_run} process{'' if one else 'es'} of {config.batch_size}"
        f"{accumulated}: {_samples(plan)} samples a step at lr {config.lr:g}"
    )


def _precision(settings: Mapping[str, Any]) -> str:
    if settings["amp_dtype"] is not None:
        return str(settings["amp_dtype"])
    has_amp = settings["amp"] or settings["native_amp"]
    return "the device's own half precision" if has_amp else "float32"


def _published(name: str) -> tuple[str, ...]:
    baseline = find_row(name).baseline
    figures, star = published_figures(name), r" \*" * bool(published_figures(name).note)
    return (
        f"`{name}`{star}",
        f"{published_figures(baseline).test_accuracy:.3f}",
        f"{figures.test_accuracy:.3f}",
        number(published_gain(name), 3, sign=True),
    )


def _found(name: str, results: Results, changed: list[str]) -> str:
    """The row of a recipe, as far as its study is."""
    alpha = published_figures(name).alpha
    own = _arm_of(results, "tampered", alpha)
    comparison = None if own is None else own.comparison(results.baseline)
    if own is None or comparison is None or results.baseline is None:
        return unreported_row(name)
    equivalent = _arm_of(results, "equivalent", alpha)
    verdict = arm_sentence(comparison, results.margin)
    if comparison.has_interval:
        gain = published_gain(name)
        place = "in" if abs(gain - comparison.mean) <= comparison.half_width else "out"
        verdict += f"; the published gain lies {place}side the interval"
    if changed:
        verdict += f"; not the published settings: {', '.join(changed)}"
    return _line(
        (
            *_published(name),
            _accuracy(results.baseline),
            _accuracy(own),
            _difference(own, results.baseline),
            "–" if equivalent is None else _difference(equivalent, results.baseline),
            "–" if results.tuned is None else _difference(own, results.tuned),
            verdict,
        )
    )


def _arm_of(results: Results, kind: str, alpha: float) -> ArmResult | None:
    found = (r for r in results.arms.values() if (r.arm.kind, r.arm.alpha) == (kind, alpha))
    return next(found, None)


def _accuracy(result: ArmResult) -> str:
    spread = result.spreads.get(ACCURACY)
    if spread is None or not spread.num_values:
        return "–"
    mean, half = spread.interval
    return f"{_with_half(number(mean, 3), half)} ({plural(spread.num_values, 'seed')})"


def _difference(result: ArmResult, other: ArmResult) -> str:
    comparison = result.comparison(other)
    if comparison is None or not comparison.num_pairs:
        return "–"
    half = comparison.half_width if comparison.has_interval else math.nan
    return _with_half(number(comparison.mean, 3, sign=True), half)


def _with_half(mean: str, half: float) -> str:
    return mean if math.isnan(half) else f"{mean} ± {number(half, 3)}"


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule() -> str:
    return f"|---|{'--:|' * (len(HEAD) - 2)}---|"
