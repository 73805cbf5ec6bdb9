"""The checkpoints in a run folder: which are kept, and which is the newest whole one."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.files.whole import (
    copy_whole,
    link_whole,
    remove,
    rename,
    sync_folder,
    write_whole,
)
from softmax_gradient_tampering.terminal.streams import print_line
from softmax_gradient_tampering.training.checkpoint.content import (
    Checkpoint,
    load_checkpoint,
    place,
)
from softmax_gradient_tampering.training.checkpoint.file import DamagedCheckpointError
from softmax_gradient_tampering.training.step.position import Position

_KEEP_RECOVERIES = 2
# ASCII digits only: \d matches digits of any script.
_KEPT = re.compile(r"checkpoint-[0-9]+\.pth\.tar")
_RECOVERY = re.compile(r"recovery-[0-9]+-[0-9]+\.pth\.tar")
_KEPT_OR_RECOVERY = re.compile(f"{_KEPT.pattern}|{_RECOVERY.pattern}")
# What a program that was killed has not renamed.
_BEGUN = re.compile(r"\.new\.pth\.tar|\.[a-z0-9_.-]+\.pth\.tar\.tmp")

Best = Sequence[tuple[int, float]]  # (epoch, metric), the best first


@dataclass(frozen=True)
class CheckpointFolder:
    """The checkpoints of a run: last, the best ones, and the newest recoveries.

    Attributes:
        folder: the run folder.
        num_best: how many of the best to keep.
        damaged: those that `newest` has passed over.
    """

    folder: Path
    num_best: int = 1
    damaged: list[Path] = field(default_factory=list)

    def check(self) -> None:
        """Check that checkpoints can be written, before anything is trained.

        Raises:
            UserError: a folder is in the place of one.
        """
        for name in ("last", "previous", "model_best", ".new"):
            path = self.folder / f"{name}.pth.tar"
            if path.is_dir() and not path.is_symlink():
                raise UserError(
                    f"{path}: a folder, where a checkpoint is to be written; move it away, then "
                    "go on with --resume auto"
                )

    def clear_up(self) -> None:
        """Remove what a killed program had begun, and a damaged `last`.

        Otherwise the damaged one would become `previous`, in the place of a whole one.
        """
        for path in self._numbered(_BEGUN):
            remove(path)
        last = self.folder / "last.pth.tar"
        if last in self.damaged:
            remove(last)

    def complete_epoch(self, origin: Path, epoch: int, best: Best) -> None:
        """Write all checkpoints of an epoch of which one alone is there, and the run goes on.

        The program was killed between them, or the disk has damaged the others.

        Args:
            origin: the one that is there.
            epoch: its number, from 1.
            best: as for `save_epoch`.
        """
        named = ("previous.pth.tar", "model_best.pth.tar")
        if origin.parent == self.folder and (origin.name in named or _KEPT.fullmatch(origin.name)):
            copy_whole(origin, self._new)
            self._give_names(epoch, best)

    def save_epoch(self, checkpoint: dict[str, Any], epoch: int, best: Best) -> None:
        """Write model_best and checkpoint-<epoch>, if the epoch is among the best, and last.

        Args:
            checkpoint: of the epoch.
            epoch: its number, from 1.
            best: the best epochs, this one among them where it is one of them.

        `last` is written last: a run that is killed before repeats the epoch and these files. The
        checkpoint before stays as `previous`, in case the disk damages the new one.
        """
        write_whole(self._new, lambda file: torch.save(checkpoint, file), lasts=False)
        self._give_names(epoch, best)

    @property
    def _new(self) -> Path:
        """A checkpoint that has not got its names yet."""
        return self.folder / ".new.pth.tar"

    def _give_names(self, epoch: int, best: Best) -> None:
        last = self.folder / "last.pth.tar"
        kept = {f"checkpoint-{kept}.pth.tar" for kept, _ in best} if self.num_best else set()
        names = ["model_best.pth.tar"] if best and best[0][0] == epoch else []
        names += kept & {f"checkpoint-{epoch}.pth.tar"}
        # The best checkpoints may share one file. `last` is a file of its own: damage to one of
        # the two leaves the other whole.
        for number, name in enumerate(names):
            if number:
                link_whole(self.folder / names[0], self.folder / name, lasts=False)
            else:
                copy_whole(self._new, self.folder / name, lasts=False)
        if last.is_file():
            link_whole(last, self.folder / "previous.pth.tar", lasts=False)
        sync_folder(self.folder)  # after a power cut too, no `last` is newer than these
        rename(self._new, last)
        for path in self._numbered(_KEPT_OR_RECOVERY):
            if path.name not in kept:
                remove(path)

    def save_recovery(self, checkpoint: dict[str, Any], position: Position) -> None:
        """Write recovery-<epoch>-<step>, and remove all but the newest two."""
        path = self.folder / f"recovery-{position.epoch}-{position.step}.pth.tar"
        write_whole(path, lambda file: torch.save(checkpoint, file))
        for old in self.recoveries()[_KEEP_RECOVERIES:]:
            remove(old)

    def recoveries(self) -> list[Path]:
        """The recovery checkpoints, the newest first."""
        return self._numbered(_RECOVERY)

    def spares(self) -> list[Path]:
        """The checkpoints that a finished run no longer needs."""
        previous = self.folder / "previous.pth.tar"
        return [*self.recoveries(), *([previous] if previous.is_file() else [])]

    def remove_spares(self) -> None:
        """Remove the checkpoints that a finished run no longer needs."""
        for path in self.spares():
            remove(path)

    def newest(self, opened: Checkpoint | None = None) -> Checkpoint | None:
        """The newest whole checkpoint; damaged ones are named and passed over.

        Args:
            opened: a checkpoint that has been opened, here or elsewhere; it is not opened again.

        Raises:
            UserError: one cannot be read, or not by this version. An older one is not used in its
                place, because what it holds would be lost.
        """
        try:
            return self._newest(opened)
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be read ({error})") from error

    def _newest(self, opened: Checkpoint | None) -> Checkpoint | None:
        last = self._load_whole(self.folder / "last.pth.tar", opened)
        for path in self.recoveries():
            if last is not None and _numbers(path)[0] < place(last.content)[0]:
                break  # of the epoch before
            recovery = self._load_whole(path, opened)
            if recovery is not None:
                return recovery
        if last is not None:
            return last
        older = [
            self.folder / "previous.pth.tar",
            *self._numbered(_KEPT),
            self.folder / "model_best.pth.tar",
        ]
        return next((found for path in older if (found := self._load_whole(path, opened))), None)

    def _load_whole(self, path: Path, opened: Checkpoint | None) -> Checkpoint | None:
        """A checkpoint; None where there is none, or where it is damaged, which is reported."""
        if not (path.exists() or path.is_symlink()):
            return None
        if opened is not None and path.exists() and path.samefile(opened.path):
            return opened
        try:
            return Checkpoint(path, load_checkpoint(path))
        except DamagedCheckpointError as error:
            print_line(f"passed over: {error}")
            self.damaged.append(path)
            return None

    def _numbered(self, name: re.Pattern[str]) -> list[Path]:
        """The files with a name of this form, which only this program gives; the newest first."""
        if not self.folder.exists():
            return []
        with os.scandir(self.folder) as entries:
            names = [
                entry.name
                for entry in entries
                if name.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            ]
        return sorted((self.folder / name for name in names), key=_numbers, reverse=True)


def _numbers(path: Path) -> list[int]:
    return [int(word) for word in re.findall(r"[0-9]+", path.name)]
