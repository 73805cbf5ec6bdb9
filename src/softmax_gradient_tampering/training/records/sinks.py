"""Optional sinks of a run's rows: TensorBoard event files, Weights & Biases."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from softmax_gradient_tampering.errors import UserError, as_user_error
from softmax_gradient_tampering.training.records.run_files import Row

PROJECT = "softmax-gradient-tampering"  # of Weights & Biases


def import_library(name: str) -> Any:
    """The library of a sink.

    Raises:
        UserError: it is not installed.
    """
    try:
        if name == "wandb":
            import wandb

            return wandb
        from torch.utils import tensorboard

        return tensorboard
    except ImportError as error:
        raise UserError(
            f"--log {name}: not installed; pip install softmax-gradient-tampering[log]"
        ) from error


class Sink(Protocol):
    def write(self, row: Row) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in the run folder's `tensorboard/`."""

    def __init__(self, folder: Path, args: Mapping[str, Any]) -> None:
        library = import_library("tensorboard")
        with as_user_error("--log tensorboard"):  # of a full disk, say
            self._writer: Any = library.SummaryWriter(str(folder / "tensorboard"))
            self._writer.add_text("args", "\n".join(f"    {k}: {v}" for k, v in args.items()))

    def write(self, row: Row) -> None:
        with as_user_error("--log tensorboard"):
            for name, value in row.items():
                if name != "epoch" and value is not None:
                    self._writer.add_scalar(name, value, row["epoch"])
            self._writer.flush()

    def close(self) -> None:
        with as_user_error("--log tensorboard"):
            self._writer.close()


class WandB:
    """A Weights & Biases run named as the run folder, its files in it."""

    def __init__(self, folder: Path, args: Mapping[str, Any]) -> None:
        library = import_library("wandb")
        with as_user_error("--log wandb"):
            self._run: Any = library.init(
                project=PROJECT,
                name=folder.name,
                dir=str(folder),
                config=dict(args),
            )

    def write(self, row: Row) -> None:
        values = {name: value for name, value in row.items() if value is not None}
        self._run.log(values, step=row["epoch"])

    def close(self) -> None:
        self._run.finish()


SINKS: dict[str, type[TensorBoard] | type[WandB]] = {"tensorboard": TensorBoard, "wandb": WandB}


def open_sinks(names: Sequence[str], folder: Path, args: Mapping[str, Any]) -> list[Sink]:
    """Open the named sinks for a run.

    Raises:
        UserError: a sink's package is not installed.
    """
    return [SINKS[name](folder, args) for name in names]
