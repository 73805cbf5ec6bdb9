"""Files that are whole or absent: temporary file, fsync, rename, fsync of the folder."""

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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
        temporary.unlink(missing_ok=True)
        try:
            with os.fdopen(os.open(temporary, _NEW, 0o666), "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            rename(temporary, path, lasts)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str, lasts: bool = True) -> None:
    """`write_whole` for text, with the line ends that it has."""
    write_whole(path, lambda file: file.write(text.encode()), lasts)


def write_parts(path: Path, parts: Iterable[str]) -> None:
    """`write_text` for a text that is too long to be in memory as a whole."""
    write_whole(path, lambda file: file.writelines(part.encode() for part in parts))


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


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


@contextmanager
def _untouched(path: Path) -> Iterator[None]:
    """Turn an error of the disk into one line."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch.save wraps a full disk in RuntimeError
        is_refused = getattr(error, "errno", None) in _REFUSED
        raise UserError(
            f"{path}: cannot be written ({error}); what was there before is untouched; "
            f"{'make it writable' if is_refused else 'make room'}, then give the command again, "
            "that of a run with --resume auto",
            is_local=True,
        ) from error
