"""The recipes that ship with the package: their names, files and published figures."""

import difflib
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


def published_figures(name: str) -> Published:
    """What was published of a recipe's row."""
    import yaml

    figures: dict[str, Any] = yaml.safe_load(recipe_path(name).read_text())["published"]
    return Published(**({"train_accuracy": None, "note": ""} | figures))
