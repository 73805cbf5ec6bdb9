"""Checkpoints: the published keys, ours besides under one, plain types and tensors only."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.files.whole import copy_whole, link_whole, rename, write_whole
from softmax_gradient_tampering.training.checkpoint.file import (
    DamagedCheckpointError,
    read_checkpoint_file,
)
from softmax_gradient_tampering.training.checkpoint.form import find_checkpoint_fault

OUR_KEY = "softmax_gradient_tampering"
FORMAT = 1
_KEEP_RECOVERIES = 2
# ASCII digits only: \d takes those of any script.
_KEPT = re.compile(r"checkpoint-[0-9]+\.pth\.tar")
_RECOVERY = re.compile(r"recovery-[0-9]+-[0-9]+\.pth\.tar")


@dataclass
class Position:
    """Where a run is: `epoch` completed epochs, and `batch` batches of the next one."""

    epoch: int = 0
    batch: int = 0
    step: int = 0  # optimizer steps
    skipped_steps: int = 0


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint without running code from it: ours, a published one, or timm's.

    Raises:
        DamagedCheckpointError: it is damaged.
        UserError: it is missing, cannot be read, asks for code to be run, or is of no known form.
    """
    checkpoint = read_checkpoint_file(path)
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path}: not a checkpoint but {type(checkpoint).__name__}")
    if "state_dict" not in checkpoint:
        checkpoint = {"state_dict": checkpoint}
    fault = find_checkpoint_fault(checkpoint, OUR_KEY, FORMAT)
    if fault is not None:
        raise UserError(f"{path}: not a checkpoint of a known form: {fault}")
    return checkpoint


def completed_epochs(checkpoint: dict[str, Any]) -> int:
    """The epochs that a checkpoint has behind it.

    `epoch` counts completed epochs in ours (version 1) and in the published ones, which carry
    version 2 and have `modify_softmax` among their args; in timm's it is the last one's number.
    """
    epoch = int(checkpoint.get("epoch", 0))
    is_ours = OUR_KEY in checkpoint
    is_published = hasattr(checkpoint.get("args"), "modify_softmax")
    if not is_ours and not is_published and checkpoint.get("version", 1) > 1:
        return epoch + 1
    return epoch


def saved_args(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The settings in a checkpoint: a mapping in ours, a Namespace in published ones."""
    args = checkpoint.get("args", {})
    return args if isinstance(args, dict) else vars(args)


def place(checkpoint: dict[str, Any]) -> tuple[int, int]:
    """How far a checkpoint is: completed epochs, and batches of the next one."""
    position = checkpoint.get(OUR_KEY, {}).get("position", {})
    return completed_epochs(checkpoint), position.get("batch", 0)


@dataclass
class CheckpointFolder:
    """The checkpoints of a run: last, the best ones, and the newest recoveries.

    Attributes:
        folder: the run folder.
        num_best: how many of the best to keep.
        lower_is_better: whether the metric is a loss.
        best: the (epoch, metric) of the ones kept, the best first.
    """

    folder: Path
    num_best: int
    lower_is_better: bool
    best: list[tuple[int, float]] = field(default_factory=list)

    def rank(self, epoch: int, metric: float | None) -> None:
        """Enter an epoch's metric among the best; before its checkpoint is made."""
        if metric is None:
            return
        sign = 1 if self.lower_is_better else -1
        self.best.append((epoch, metric))
        # A later epoch is not better for being equal; nan is worse than any number.
        self.best.sort(key=lambda item: (item[1] != item[1], sign * item[1], item[0]))
        self.best = self.best[: max(1, self.num_best)]

    def save_epoch(self, checkpoint: dict[str, Any], epoch: int) -> None:
        """Write model_best and checkpoint-<epoch>, as far as it is among the best, and last.

        `last` comes last: a run killed before it does the epoch again, and these files too. The
        one before stays as `previous`, for the case that the disk damages the new one.
        """
        new, last = self.folder / ".new.pth.tar", self.folder / "last.pth.tar"
        write_whole(new, lambda file: torch.save(checkpoint, file))
        kept = {f"checkpoint-{kept}.pth.tar" for kept, _ in self.best} if self.num_best else set()
        names = ["model_best.pth.tar"] if self.best and self.best[0][0] == epoch else []
        names += kept & {f"checkpoint-{epoch}.pth.tar"}
        # The best ones may be one file. `last` is a file of its own: what damages one of the two
        # leaves the other.
        for number, name in enumerate(names):
            if number:
                link_whole(self.folder / names[0], self.folder / name)
            else:
                copy_whole(new, self.folder / name)
        if last.exists():
            link_whole(last, self.folder / "previous.pth.tar")
        rename(new, last)
        for path in self._numbered(_KEPT):
            if path.name not in kept:
                path.unlink()
        for path in self.recoveries():
            path.unlink()

    def save_recovery(self, checkpoint: dict[str, Any], position: Position) -> None:
        """Write recovery-<epoch>-<step>, and remove all but the newest two."""
        path = self.folder / f"recovery-{position.epoch}-{position.step}.pth.tar"
        write_whole(path, lambda file: torch.save(checkpoint, file))
        for old in self.recoveries()[_KEEP_RECOVERIES:]:
            old.unlink()

    def recoveries(self) -> list[Path]:
        """The recovery checkpoints, the newest first."""
        return self._numbered(_RECOVERY)

    def remove_spares(self) -> None:
        """Remove what a finished run needs no more."""
        for path in [*self.recoveries(), self.folder / "previous.pth.tar"]:
            path.unlink(missing_ok=True)

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest whole checkpoint, and its path; damaged ones are named and passed over.

        Raises:
            UserError: one cannot be read, or not by this version: an older one in its place
                would lose what it holds.
        """
        try:
            return self._newest()
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be read ({error})") from error

    def _newest(self) -> tuple[Path, dict[str, Any]] | None:
        last = _load_whole(self.folder / "last.pth.tar")
        for path in self.recoveries():
            if last is not None and _numbers(path)[0] < place(last[1])[0]:
                break  # of the epoch before
            recovery = _load_whole(path)
            if recovery is not None:
                return recovery
        if last is not None:
            return last
        older = [
            self.folder / "previous.pth.tar",
            *self._numbered(_KEPT),
            self.folder / "model_best.pth.tar",
        ]
        return next((found for path in older if (found := _load_whole(path)) is not None), None)

    def _numbered(self, name: re.Pattern[str]) -> list[Path]:
        """The files that this program named so, and none that a user did; the newest first."""
        if not self.folder.exists():
            return []
        with os.scandir(self.folder) as entries:
            names = [
                entry.name
                for entry in entries
                if name.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            ]
        return sorted((self.folder / name for name in names), key=_numbers, reverse=True)


def _load_whole(path: Path) -> tuple[Path, dict[str, Any]] | None:
    """A checkpoint, or None where there is none or it is damaged, which is said."""
    if not (path.exists() or path.is_symlink()):
        return None
    try:
        return path, load_checkpoint(path)
    except DamagedCheckpointError as error:
        print(f"passed over: {error}")
        return None


def _numbers(path: Path) -> list[int]:
    return [int(word) for word in re.findall(r"[0-9]+", path.name)]
