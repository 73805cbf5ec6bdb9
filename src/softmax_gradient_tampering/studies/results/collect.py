"""A study, a run folder or a summary.csv, read into one form."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.plan.plan import Arm, Cell, Plan, State
from softmax_gradient_tampering.studies.plan.plan_file import FILE_NAME
from softmax_gradient_tampering.studies.results.cell_record import CellRecord, read_cell
from softmax_gradient_tampering.studies.results.predictions import Agreement, agreement
from softmax_gradient_tampering.studies.results.recorded_run import (
    RecordedRun,
    alpha_of,
    measure_ends,
    measure_files,
)
from softmax_gradient_tampering.studies.results.run_files import (
    RunFiles,
    as_number,
    read_run,
    read_summary_alone,
)
from softmax_gradient_tampering.studies.results.study import Study, StudyCell
from softmax_gradient_tampering.studies.results.study_folder import StudyFolder, open_study

AfterCell = Callable[[int, int], None]


def collect(path: Path, after_cell: AfterCell | None = None) -> Study:
    """Read a study folder, a run folder or a summary.csv.

    Args:
        path: of one of the three.
        after_cell: called after every cell with the cells done and the cells in all.

    Raises:
        UserError: it is none of the three, or what it needs cannot be read.
    """
    if path.is_file():
        return _collect_summary(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder; give a study, a run or a summary.csv")
    if (path / FILE_NAME).exists():
        return _collect_study(open_study(path), after_cell)
    if (path / "summary.csv").exists():
        return _collect_run(path)
    raise UserError(
        f"{path}: neither a study (plan.json) nor a run folder (summary.csv){_inside(path)}"
    )


def _collect_summary(path: Path) -> Study:
    try:
        run = read_summary_alone(path)
    except ValueError as error:
        raise UserError(f"{path} is no summary of a run: {error}") from error
    name = path.resolve().parent.name or path.stem
    return _single(run, "summary", name)


def _collect_run(folder: Path) -> Study:
    try:
        run = read_run(folder)
    except ValueError as error:
        raise UserError(
            f"{folder}: not a whole run folder: {error}; its summary.csv can be reported alone"
        ) from error
    return _single(run, "run", folder.resolve().name)


def _single(run: RunFiles, kind: str, name: str) -> Study:
    try:
        measured = measure_files(run, alpha_of(run.args))
    except ValueError as error:
        raise UserError(f"{run.path}: {error}") from error
    alpha = measured.alpha
    arm_kind = "baseline" if alpha == 1 else "tampered"
    arm = Arm(f"alpha-{alpha:g}" if run.args else "run", arm_kind, alpha)
    seed = as_number(run.args.get("seed"))
    is_finished = bool(run.result) or kind == "summary"
    state = State.FINISHED if is_finished else State.UNFINISHED
    cell = Cell(name, arm.name, int(seed) if seed == seed else 0)
    words = run.environment.get("command")
    command = tuple(str(word) for word in words) if isinstance(words, list) else ()
    return Study(run.path, kind, name, command, (arm,), (StudyCell(cell, state, "", measured),))


def collect_tables(path: Path) -> Study:
    """A study by its runs' last epochs, without curves and predictions: quickly read.

    Runs that a process works on are told apart.

    Raises:
        UserError: it is no study.
    """
    folder = open_study(path)
    cells = {each.cell: each for each in _read_tables(folder)}
    return _study(folder, cells, {}, [*_notes(folder)])


def _collect_study(folder: StudyFolder, after_cell: AfterCell | None) -> Study:
    plan, notes = folder.plan, [*_notes(folder)]
    cells: dict[Cell, StudyCell] = {}
    found: dict[Cell, Agreement] = {}
    for number, each in enumerate(_read_cells(folder, found, notes), start=1):
        cells[each.cell] = each
        if after_cell is not None:
            after_cell(number, len(plan.cells))
    agreements = {
        arm.name: {cell.seed: found[cell] for cell in plan.cells_of(arm.name) if cell in found}
        for arm in plan.arms
        if arm.kind == "equivalent"
    }
    return _study(folder, cells, agreements, notes)


def _study(
    folder: StudyFolder,
    cells: Mapping[Cell, StudyCell],
    agreements: dict[str, dict[int, Agreement]],
    notes: Sequence[str],
) -> Study:
    plan = folder.plan
    return Study(
        path=folder.path,
        kind="study",
        name=plan.name,
        command=plan.command,
        arms=plan.arms,
        cells=tuple(cells[cell] for cell in plan.cells),
        agreements=agreements,
        notes=tuple(notes),
        is_sequential=plan.is_sequential,
        margin=plan.margin if plan.settling is None else plan.settling.margin,
        metric=plan.metric,
    )


def _notes(folder: StudyFolder) -> Iterator[str]:
    """What a reader should know of a study besides its numbers."""
    plan = folder.plan
    if plan.stages:
        first, last, times = plan.stages[0], plan.stages[-1], len(plan.stages)
        once = f" after its first {first if first > 1 else 'one'}"
        often = f" {times} times, at first after {first} and at last after {last}"
        yield (
            "Seeds were added to this study"
            f"{often if times > 1 else once}. Its intervals and the p "
            "values of its verdicts are those of a sequence, which holds however often one looks"
        )
    added = [arm.name for arm in plan.arms if arm.is_added and arm.is_judged]
    if added:
        yield (
            f"Added to this study after its first arms: {', '.join(added)}. Holm's correction is "
            "over all arms that it has now; it does not allow for arms that are added until one "
            "of them helps"
        )
    strays = _folders(folder.cells_path) - {cell.id for cell in plan.cells}
    if strays:
        yield (
            f"{len(strays)} folder{'s' if len(strays) > 1 else ''} in cells/ that the plan does "
            f"not name, passed over: {', '.join(sorted(strays)[:5])}"
        )


def _read_cells(
    folder: StudyFolder, agreements: dict[Cell, Agreement], notes: list[str]
) -> Iterator[StudyCell]:
    """Read the cells of a study, seed by seed.

    An equivalent arm's cell comes right after that of the arm that it must follow: they are
    compared, and no other predictions are in memory.

    Args:
        folder: of the study.
        agreements: filled in with how nearly the equivalent cells follow.
        notes: added to where two of them cannot be compared.
    """
    plan, followed = folder.plan, _followed_arms(folder.plan)
    place = {arm.name: number for number, arm in enumerate(plan.arms)}
    by_seed: dict[int, list[Cell]] = {}
    for cell in plan.cells:
        by_seed.setdefault(cell.seed, []).append(cell)
    for cells in by_seed.values():
        done: dict[str, StudyCell] = {}  # equal configurations share a folder
        last: CellRecord | None = None
        cells.sort(key=lambda cell: (place[followed.get(cell.arm, cell.arm)], cell.arm in followed))
        for cell in cells:
            if cell.id not in done:
                record = read_cell(folder.cell_path(cell), cell, plan.settings_of(cell))
                if cell.arm not in followed:
                    last = record
                elif last is not None and last.cell.arm == followed[cell.arm]:
                    _compare(last, record, plan.arm(cell.arm).alpha, agreements, notes)
                scale = plan.arm(cell.arm).logit_scale
                done[cell.id] = _study_cell(record, partial(measure_files, scale=scale))
            yield replace(done[cell.id], cell=cell)


def _read_tables(folder: StudyFolder) -> Iterator[StudyCell]:
    """Read the cells of a study by their last epochs."""
    done: dict[str, StudyCell] = {}
    for cell in folder.plan.cells:
        if cell.id not in done:
            record = folder.read(cell)
            done[cell.id] = _study_cell(record, measure_ends)
        yield replace(done[cell.id], cell=cell)


def _followed_arms(plan: Plan) -> dict[str, str]:
    """Of every equivalent arm's name, that of the arm that it follows."""
    return {arm.name: arm.follows for arm in plan.arms if arm.follows is not None}


def _compare(
    tampered: CellRecord,
    equivalent: CellRecord,
    alpha: float,
    agreements: dict[Cell, Agreement],
    notes: list[str],
) -> None:
    """Note how nearly an equivalent run follows the tampered one of its seed."""
    followed, own = (
        None if record.run is None else record.run.predictions for record in (tampered, equivalent)
    )
    if followed is None or own is None:
        return
    cell = equivalent.cell
    try:
        agreements[cell] = agreement(followed, own, alpha)
    except ValueError as error:
        notes.append(f"{cell.arm} and {tampered.cell.arm}, seed {cell.seed}: {error}")


def _study_cell(record: CellRecord, measure: Callable[[RunFiles], RecordedRun]) -> StudyCell:
    """A cell as a report shows it: its run measured, a failure with its attempts."""
    run = None if record.run is None else measure(record.run)
    times = f" ({record.attempts} attempt{'s' if record.attempts != 1 else ''})"
    reason = record.reason + times * bool(record.attempts)
    return StudyCell(record.cell, record.state, reason, run)


def _folders(path: Path) -> set[str]:
    try:
        return {entry.name for entry in os.scandir(path) if entry.is_dir()}
    except OSError:
        return set()


def _inside(path: Path) -> str:
    """Where a study or run is one folder deeper."""
    for name in sorted(_folders(path)):
        if any((path / name / file).exists() for file in (FILE_NAME, "summary.csv")):
            return f"; did you mean {path / name}?"
    return ""
