"""The tuned baseline's settings: the point of the grid that is best on the hold-out."""

import math
from collections.abc import Sequence
from typing import Any

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.analysis.measurements import (
    judged_value,
    key_of_metric,
)
from softmax_gradient_tampering.studies.plan.plan import ACCURACY, Arm, Plan, State
from softmax_gradient_tampering.studies.results.cell_record import CellRecord
from softmax_gradient_tampering.studies.results.study_folder import StudyFolder

WHEN = "after the last epoch, on the held-out part of the training set"
_ENDED = (State.FINISHED, State.DIVERGED)


def select_settings(study: StudyFolder, given_up: frozenset[str] = frozenset()) -> bool:
    """Choose the settings of every tuned arm whose tuning is over, and add its cells.

    Args:
        study: whose plan is rewritten then.
        given_up: ids of tuning cells that failed for good.

    Returns:
        Whether a selection was made, here or by another process.

    Raises:
        UserError: no point of the grid has all its runs.
    """
    study.reload()
    if not any(arm.is_waiting for arm in study.plan.arms):
        return False
    is_made = False
    with study.plan_lock():
        for arm in [arm for arm in study.plan.arms if arm.is_waiting]:
            records = [study.read(cell) for cell in study.plan.cells_of(*arm.selected_from)]
            if all(r.state in _ENDED or r.cell.id in given_up for r in records):
                study.rewrite(study.plan.with_selection(arm.name, _selection(study, arm, records)))
                is_made = True
    return is_made


def _selection(study: StudyFolder, arm: Arm, records: Sequence[CellRecord]) -> dict[str, Any]:
    """metric, table and chosen: of the points that have all their runs, the best.

    Of two that are equally good the one with the lower mean loss, then the first.
    """
    metric = study.plan.metric
    table, best, best_score = list[dict[str, Any]](), None, (-math.inf, -math.inf)
    for name, point in _grid_points(study.plan, arm).items():
        runs = [record.run for record in records if record.cell.arm == name]
        finished = [run for run in runs if run is not None]
        tops = [run.summary.final("eval_top1") for run in finished]
        judged = [
            judged_value(metric, top1, run.classes)
            for top1, run in zip(tops, finished, strict=True)
        ]
        mean, top1 = _mean(judged), _mean(tops)
        loss = _mean([run.summary.final("eval_loss") for run in finished])
        table.append({"overrides": point, "mean_top1": top1, "mean_loss": loss, "n": len(finished)})
        if metric != ACCURACY:
            table[-1]["mean_metric"] = mean
        score = (-math.inf if mean is None else mean, -math.inf if loss is None else -loss)
        if mean is not None and len(finished) == len(runs) and score > best_score:
            best, best_score = point, score
    if best is None:
        raise UserError(
            f"{study.path}: no point of the grid has all its runs, with {metric} measured; see "
            "failure.json of the cells"
        )
    return {"metric": f"{key_of_metric(metric)} {WHEN}", "table": table, "chosen": best}


def _grid_points(plan: Plan, tuned: Arm) -> dict[str, dict[str, Any]]:
    """The points of the grid by the tuning arm's name: in which flags these differ from the tuned.

    A tuning arm differs from it in the hold-out besides, which is none of the grid.
    """
    arms = [plan.arm(name) for name in tuned.selected_from]
    flags = {
        name: None
        for arm in arms
        for name, value in arm.overrides.items()
        if name != "holdout" and (name not in tuned.overrides or value != tuned.overrides[name])
    }
    return {arm.name: {name: arm.overrides[name] for name in flags} for arm in arms}


def _mean(values: list[float]) -> float | None:
    """The mean; None of no values, or where one is not a number, as after a divergence."""
    if not values or not all(math.isfinite(value) for value in values):
        return None
    return math.fsum(values) / len(values)
