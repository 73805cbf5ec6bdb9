"""What is to be installed where a library is missing: the base installation has torch alone."""

from collections.abc import Iterable

# Of every library that an extra of pyproject.toml brings: the extra.
_EXTRA_OF = {
    **dict.fromkeys(("timm", "torchvision", "safetensors", "rich"), "train"),
    **dict.fromkeys(("yaml", "sklearn", "numpy", "PIL"), "train"),
    **dict.fromkeys(("matplotlib", "scipy", "jinja2", "markupsafe"), "study"),
    "optuna": "search",
    **dict.fromkeys(("tensorboard", "wandb"), "log"),
    "nvidia": "dali",
}


def describe_missing(error: ModuleNotFoundError, extras: Iterable[str]) -> str | None:
    """A line that names a missing library and the command that installs it.

    Args:
        error: of the import.
        extras: those that the command needs in any case.

    Returns:
        None where no extra brings the library: then the import is a mistake of the program's.
    """
    library = (error.name or "").partition(".")[0]
    if library not in _EXTRA_OF:
        return None
    named = ",".join(dict.fromkeys([*extras, _EXTRA_OF[library]]))
    return (
        f"it needs {library}, which is not installed; "
        f"pip install 'softmax-gradient-tampering[{named}]'"
    )
