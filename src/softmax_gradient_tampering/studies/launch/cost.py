"""What the runs of a study cost, in time and on the disk: measured, and estimated from that."""

import math
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.studies.plan.plan import Cell
from softmax_gradient_tampering.training.config.fields import Config

if TYPE_CHECKING:
    from softmax_gradient_tampering.training.run import Extent

TRIAL_S = 0.5  # of training, of one run of every arm
_STALE_S = 3600.0
_EVALUATION = 1 / 3  # of a training step's time, for as many samples


@dataclass(frozen=True)
class RunCost:
    """What a run costs.

    Attributes:
        seconds: from its first to its last step.
        num_bytes: of its folder, with one checkpoint; 0 where that is not known.
        class_names: of its data; none where they have none.
        untested: those among them of which there is no sample to evaluate.
    """

    seconds: float
    num_bytes: int = 0
    class_names: tuple[str, ...] = ()
    untested: tuple[str, ...] = ()


class _EnoughError(UserError):
    """Ends a trial; a run that ends so leaves its checkpoint behind."""


def try_run(config: Config) -> RunCost:
    """Train a run for a moment, in a folder of its own, and tell what the whole run costs.

    Returns:
        Of a dry run, and of one that ends by itself in its first two batches, a time that is
        nan: whatever it is, the run will say so.

    Raises:
        UserError: it cannot be set up.
        SystemExit: a signal has ended it.
    """
    from softmax_gradient_tampering.training.run import run

    extents: list[Extent] = []
    times: list[float] = []

    def after_batch() -> None:
        times.append(time.perf_counter())
        if len(times) > 2 and times[-1] - times[1] > TRIAL_S:
            raise _EnoughError("a trial")

    def after_set_up(extent: "Extent") -> None:
        extents.append(extent)
        times.append(time.perf_counter())

    is_whole = False
    try:
        result = run(config, True, after_batch, after_set_up)
        if result.exit_code:
            raise SystemExit(result.exit_code)
        is_whole = True
    except Exception:
        if not times:
            raise
        if len(times) < 3:
            return _unknown_cost(extents[0])
    (extent,) = extents
    if config.dry_run:
        return _unknown_cost(extent)
    folder = Path(config.output) / config.experiment
    num_bytes = _num_bytes(folder)
    if is_whole:
        seconds = time.perf_counter() - times[0]
    else:
        seconds = _seconds(times, extent, config.batch_size)
        num_bytes += 4 * extent.num_val * extent.num_classes * config.save_predictions
    return replace(_unknown_cost(extent), seconds=seconds, num_bytes=num_bytes)


def _unknown_cost(extent: "Extent") -> RunCost:
    """What is known of a run before it is tried."""
    return RunCost(math.nan, class_names=extent.class_names, untested=extent.untested)


def _seconds(times: list[float], extent: "Extent", batch_size: int) -> float:
    """Of the whole run, from the times at which it was set up and its first batches ended."""
    num_timed = len(times) - 2  # the first one is slower
    step = (times[-1] - times[1]) / num_timed
    seconds = step * extent.num_batches * extent.num_epochs
    if num_timed < extent.num_batches:  # no evaluation is among what was timed
        seconds += _EVALUATION * step * extent.num_val / batch_size * extent.num_epochs
    return times[1] - times[0] + seconds


def _num_bytes(folder: Path) -> int:
    """Of a run's folder, as if it had one checkpoint."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    checkpoints = [size for path, size in sizes.items() if path.name.endswith(".pth.tar")]
    return sum(sizes.values()) - sum(checkpoints) + max(checkpoints, default=0)


@contextmanager
def trial_folder(path: Path) -> Iterator[Path]:
    """A folder beside a study for its trials, which leaves nothing behind.

    Args:
        path: of the study, DIR/NAME.

    Raises:
        UserError: it cannot be made.
    """
    made = [each for each in (path.parent, *path.parent.parents) if not each.exists()]
    prefix = f".{path.name}.trial-"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{prefix}*"):  # by a process that was killed
            if time.time() - left.stat().st_mtime > _STALE_S:
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
    except OSError as error:
        raise UserError(f"{path}: cannot be made ({error})") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for each in made:  # where nothing has been planned meanwhile
            try:
                each.rmdir()
            except OSError:
                break


def describe_cost(
    cells: Iterable[Cell], costs: Mapping[str, RunCost], num_jobs: int, num_waiting: int = 0
) -> str:
    """How many runs there are to do, and about what they take.

    Args:
        cells: to do.
        costs: of a run, by the arm's name; an arm that is not there costs as much as the others.
        num_jobs: runs at a time.
        num_waiting: cells that will be known later.
    """
    arms = [cell.arm for cell in cells]
    number = len(arms) + num_waiting
    runs = f"{number:,} run{'s' * (number != 1)} to do, {num_jobs:,} at a time"
    costs = {arm: cost for arm, cost in costs.items() if math.isfinite(cost.seconds)}
    known = list(costs.values())
    if not known or not number:
        return runs
    usual = RunCost(
        sum(cost.seconds for cost in known) / len(known),
        sum(cost.num_bytes for cost in known) // len(known),
    )
    found = [costs.get(arm, usual) for arm in arms] + [usual] * num_waiting
    seconds = sum(cost.seconds for cost in found) / min(num_jobs, number)
    num_bytes = sum(cost.num_bytes for cost in found)
    disk = f" and {describe_size(num_bytes)}" if num_bytes else ""
    return f"{runs}: about {describe_time(seconds)}{disk}"


def describe_time(seconds: float) -> str:
    """A time as a person says it.

    >>> describe_time(0.2), describe_time(95), describe_time(5000), describe_time(2e5)
    ('1 s', '2 min', '1 h 23 min', '2 d 8 h')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 3600:
        return f"{round(seconds / 60)} min"
    large, small = ((3600, "h"), (60, "min")) if seconds < 86_400 else ((86_400, "d"), (3600, "h"))
    whole, rest = divmod(round(seconds / small[0]) * small[0], large[0])
    return f"{whole} {large[1]}" + (f" {rest // small[0]} {small[1]}" if rest else "")


def describe_size(num_bytes: float) -> str:
    """A size as a person says it.

    >>> describe_size(400), describe_size(2_500_000), describe_size(31_000_000_000)
    ('1 MB', '2 MB', '31 GB')
    """
    if num_bytes < 1e10:
        return f"{max(1, round(num_bytes / 1e6)):,} MB"
    return f"{round(num_bytes / 1e9):,} GB"
