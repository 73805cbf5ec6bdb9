"""Files that are whole or absent: temporary file, fsync, rename, fsync of the folder."""

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from softmax_gradient_tampering.errors import UserError

_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)
# A new file: a link that somebody has put at the temporary name is not followed.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


def write_whole(path: Path, write: Callable[[BinaryIO], object], lasts: bool = True) -> None:
    """Write a file so that `path` holds the old content or the new, never a part.

    Args:
        path: of the file.
        write: writes its content.
        lasts: whether a power cut can no longer take the new content back; where not, `path` may
            hold the old one after it, until the folder is synced.

    Raises:
        UserError: it cannot be written, the disk being full or the folder read-only; what
            was at `path` is still there.
    """
    temporary = _temporary(path)
    with _untouched(path):
        try:
            _write_beside(path, write)
            rename(temporary, path, lasts)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str, lasts: bool = True) -> None:
    """`write_whole` for text, with the line ends that it has."""
    write_whole(path, lambda file: file.write(text.encode()), lasts)


def write_together(contents: Mapping[Path, Iterable[str]]) -> None:
    """Write text files that belong together, so that all of them are new, or all as before.

    All are written beside their places before the first one takes its place, so a full disk
    changes none. What ends the process between two renames leaves some new and some old.

    Args:
        contents: the text of every file, in parts where it is too long to be in memory.

    Raises:
        UserError: as `write_whole`.
    """
    try:
        for path, parts in contents.items():
            with _untouched(path, "all files that it belongs to are as before", again=""):
                if path.is_dir():  # which no file can take the place of
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                _write_beside(path, partial(_write_parts, parts))
        for path in contents:
            rename(_temporary(path), path, lasts=False)
    except BaseException:
        for path in contents:
            _temporary(path).unlink(missing_ok=True)
        raise
    for folder in {path.parent for path in contents}:
        sync_folder(folder)


def copy_whole(source: Path, path: Path, lasts: bool = True) -> None:
    """Copy a whole file, sharing no bytes with it; `lasts` as for `write_whole`.

    Raises:
        UserError: as `write_whole`.
    """
    with _untouched(path), source.open("rb") as original:
        write_whole(path, lambda file: shutil.copyfileobj(original, file), lasts)


def link_whole(source: Path, path: Path, lasts: bool = True) -> None:
    """Give a whole file a second name: a hard link, or a copy where there are none.

    `lasts` as for `write_whole`.

    Raises:
        UserError: as `write_whole`.
    """
    temporary = _temporary(path)
    with _untouched(path):
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            copy_whole(source, path, lasts)
            return
        rename(temporary, path, lasts)
        temporary.unlink(missing_ok=True)  # two names of one file: the system had nothing to do


def rename(source: Path, path: Path, lasts: bool = True) -> None:
    """Rename a file, over what is at `path`; `lasts` as for `write_whole`.

    Raises:
        UserError: as `write_whole`.
    """
    with _untouched(path):
        source.replace(path)
        if lasts:
            sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Let the names in a folder outlive a power cut, as they are now.

    Raises:
        UserError: as `write_whole`.
    """
    with _untouched(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, if it is there.

    Raises:
        UserError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be removed ({error}); remove it, then go on with --resume auto",
            is_local=True,
        ) from error


def _write_parts(parts: Iterable[str], file: BinaryIO) -> None:
    file.writelines(part.encode() for part in parts)


def _write_beside(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write the file that is to take the place of another, down to the disk."""
    temporary = _temporary(path)
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, _NEW, 0o666), "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


@contextmanager
def _untouched(
    path: Path,
    kept: str = "what was there before is untouched",
    again: str = ", that of a run with --resume auto",
) -> Iterator[None]:
    """Turn an error of the disk into one line, with what is kept and how to go on."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch.save wraps a full disk in RuntimeError
        is_refused = getattr(error, "errno", None) in _REFUSED
        raise UserError(
            f"{path}: cannot be written ({error}); {kept}; "
            f"{'make it writable' if is_refused else 'make room'}, then give the command "
            f"again{again}",
            is_local=True,
        ) from error
