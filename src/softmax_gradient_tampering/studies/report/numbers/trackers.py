"""A report in TensorBoard or Weights & Biases: its sentence, its tables, its curves or its page."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from softmax_gradient_tampering.errors import as_user_error
from softmax_gradient_tampering.studies.report.numbers.curves import ArmCurve
from softmax_gradient_tampering.studies.report.numbers.rows import Table
from softmax_gradient_tampering.training.records.sinks import PROJECT, import_library

_EVENTS = "events.out.tfevents.*"


@dataclass(frozen=True)
class Tracked:
    """What is sent.

    Attributes:
        name: of what is reported.
        verdict: the report's first sentence.
        tables: by their names.
        curves: of the arms.
        page: the HTML file.
    """

    name: str
    verdict: str
    tables: Mapping[str, Table]
    curves: Sequence[ArmCurve]
    page: Path


def check_trackers(names: Sequence[str]) -> None:
    """Check that what reports are sent to is installed.

    Raises:
        UserError: one is not.
    """
    for name in names:
        import_library(name)


def send_report(tracked: Tracked, names: Sequence[str]) -> None:
    """Send a report to these trackers.

    Raises:
        UserError: one is not installed, or cannot be written to.
    """
    for name in names:
        with as_user_error(f"--log {name}"):  # of a full disk, say
            TRACKERS[name](import_library(name), tracked)


def tensorboard_folder(page: Path) -> Path:
    """Where TensorBoard's files of a page stand."""
    return page.with_name(f"{page.stem}-tensorboard")


def _to_tensorboard(module: Any, tracked: Tracked) -> None:
    """Event files beside the page, with a folder for the curves of each arm."""
    folder = tensorboard_folder(tracked.page)
    for earlier in [*folder.glob(_EVENTS), *folder.glob(f"*/{_EVENTS}")]:
        earlier.unlink()  # the report that this one replaces
    with module.SummaryWriter(str(folder)) as writer:
        writer.add_text("verdict", tracked.verdict)
        for name, table in tracked.tables.items():
            writer.add_text(name, _markdown(table))
    by_arm: dict[str, list[ArmCurve]] = {}
    for each in tracked.curves:
        by_arm.setdefault(each.arm, []).append(each)
    for number, (arm, curves) in enumerate(by_arm.items()):
        safe = re.sub(r"[^\w.=-]+", "_", arm)
        with module.SummaryWriter(str(folder / f"{number:02d}-{safe}")) as writer:
            for _, column, curve in curves:
                for epoch, mean in zip(curve.epochs.tolist(), curve.mean.tolist(), strict=True):
                    if np.isfinite(mean):
                        writer.add_scalar(column, mean, int(epoch))


def _to_wandb(module: Any, tracked: Tracked) -> None:
    """A run named as the study, with the tables and the page."""
    run = module.init(
        project=PROJECT, name=tracked.name, job_type="report", dir=str(tracked.page.parent)
    )
    try:
        run.summary["verdict"] = tracked.verdict
        for name, table in tracked.tables.items():
            if table:
                rows = [[_plain(value) for value in row.values()] for row in table]
                run.log({name: module.Table(columns=list(table[0]), data=rows)})
        page = tracked.page.read_text(encoding="utf-8")
        run.log({"report": module.Html(page, inject=False)})
    finally:
        run.finish()


TRACKERS = {"tensorboard": _to_tensorboard, "wandb": _to_wandb}


def _markdown(table: Table) -> str:
    """A table as TensorBoard shows it."""
    if not table:
        return "none"
    rows = [list(table[0]), ["---"] * len(table[0]), *(row.values() for row in table)]
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _cell(value: Any) -> str:
    """A value as text that does not end its cell."""
    if value is None or value != value:  # not a number
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _plain(value: Any) -> Any:
    """A value of one of the types that a column has; an enumeration's word."""
    return value if value is None or isinstance(value, bool | int | float) else str(value)
