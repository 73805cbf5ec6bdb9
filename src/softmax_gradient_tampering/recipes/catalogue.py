"""The recipes that ship with the package: their names, files and published figures."""

import difflib
import itertools
import re
from pathlib import Path
from typing import Any, NamedTuple

from softmax_gradient_tampering.errors import UserError

_FOLDER = Path(__file__).parent


class Published(NamedTuple):
    """What was published of a row; accuracies in percent.

    Attributes:
        alpha: the exponent, 1 for the baseline.
        test_accuracy: of one run.
        train_accuracy: of one run, or None where it was not published.
        processes: GPUs of the published run, each with the recipe's batch size.
        source: where the figures stand.
        note: what is not known of the row, or was chosen here.
    """

    alpha: float
    test_accuracy: float
    train_accuracy: float | None
    processes: int
    source: str
    note: str


class Row(NamedTuple):
    """A published comparison: recipes that differ in alpha alone.

    Attributes:
        baseline: name of the recipe of alpha 1.
        tampered: names of the others, the largest alpha first.
    """

    baseline: str
    tampered: tuple[str, ...]


def recipe_names() -> list[str]:
    """All names, the published README's rows first, then the paper's."""
    names = [str(path.relative_to(_FOLDER).with_suffix("")) for path in _FOLDER.rglob("*.yaml")]
    return sorted(names, key=lambda name: (name.startswith("paper/"), name))


def recipe_path(name: str) -> Path:
    """The file of a recipe.

    Raises:
        UserError: there is no such recipe; the nearest is named.
    """
    names = recipe_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else "`sgt recipes` lists them"
        raise UserError(f"recipe {name!r:.80}: there is none of that name; {hint}")
    return _FOLDER / f"{name}.yaml"


def recipe_of(path: Path) -> str | None:
    """The name of the recipe that a file is, or is a copy of; None for another file.

    A pipe is none: it has been read when this is asked, and cannot be read again.
    """
    try:
        text = path.read_bytes() if path.is_file() else b""
    except OSError:
        return None
    return next((name for name in recipe_names() if recipe_path(name).read_bytes() == text), None)


def published_figures(name: str) -> Published:
    """What was published of a recipe's row."""
    figures: dict[str, Any] = _read(name)["published"]
    return Published(**({"train_accuracy": None, "note": ""} | figures))


def find_row(name: str) -> Row:
    """The comparison that a recipe is part of: its own pair; of alpha 1, all that share it.

    Raises:
        UserError: there is no such recipe; the nearest is named.
    """
    recipe_path(name)
    baseline = _baseline_of(name)
    if name != baseline:
        return Row(baseline, (name,))
    others = [each for each in recipe_names() if _baseline_of(each) == name != each]
    return Row(name, tuple(sorted(others, key=lambda each: -published_figures(each).alpha)))


def published_gain(name: str) -> float:
    """How much more accurate a row was published to be than its baseline, in points."""
    figures = published_figures(name), published_figures(_baseline_of(name))
    return round(figures[0].test_accuracy - figures[1].test_accuracy, 3)


def margin_of(row: Row) -> float:
    """The smallest published gain of a row: less than that is less than was published."""
    return min(abs(published_gain(name)) for name in row.tampered)


def _baseline_of(name: str) -> str:
    return re.sub(r"alpha-[\d.]+", "alpha-1.0", name)


def batch_size_of(name: str) -> int:
    """The batch size of each process that a recipe was published with."""
    batch_size: int = _read(name)["batch_size"]
    return batch_size


def split_batch(name: str, processes: int) -> tuple[int, int]:
    """How a step has the published number of samples on another number of processes.

    Args:
        name: of the recipe.
        processes: of the run.

    Returns:
        The batch size of a process, at most the recipe's, and the batches of a step.

    Raises:
        UserError: the samples cannot be divided so.
    """
    batch_size = batch_size_of(name)
    samples = batch_size * published_figures(name).processes
    if samples % processes:
        raise UserError(
            f"{processes} processes: the {samples} samples of a published step cannot be divided "
            f"among them; choose a number that divides {samples}"
        )
    share = samples // processes
    fewest = -(-share // batch_size)
    number = next(n for n in itertools.count(fewest) if share % n == 0)
    return share // number, number


def batch_warning(name: str, samples: int, processes: int, lr: float) -> str | None:
    """What to say where an optimizer step is not over as many samples as the published one.

    Args:
        name: of the recipe.
        samples: of an optimizer step, over all processes and accumulated batches.
        processes: of the run.
        lr: its learning rate.

    Returns:
        A line with both numbers, the rates and what would be the same; or None.
    """
    recipe, published = _read(name), published_figures(name)
    of_published = recipe["batch_size"] * published.processes
    if samples == of_published:
        return None
    mend = "choose an --lr for this batch"
    if of_published % processes == 0:
        mend = f"give -b {of_published // processes} (or less with --grad-accum-steps), or {mend}"
    return (
        f"Warning: {name} was published with {published.processes} processes of "
        f"{recipe['batch_size']}: {of_published} samples a step at lr {recipe['lr']:g}; this run "
        f"has {samples} a step at lr {lr:g}. To train what was published, {mend}"
    )


def _read(name: str) -> dict[str, Any]:
    import yaml

    recipe: dict[str, Any] = yaml.safe_load(recipe_path(name).read_text())
    return recipe
