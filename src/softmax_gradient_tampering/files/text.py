"""Text of files that may be of any size, or no files: read up to a limit.

What a person names may be a pipe or a device, and is read as well. What programs leave in their
folders is a regular file: a pipe in its place would be waited for without end.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

MAX_SETTINGS = 2**20  # bytes of a YAML file of settings
MAX_RECORD = 2**28  # bytes of what programs write: JSON, CSV


def read_text(path: Path, max_bytes: int = MAX_RECORD, errors: str = "strict") -> str:
    """The UTF-8 text of a file, with the line ends that it has, without a byte order mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer than `max_bytes`, or no UTF-8 where `errors` is strict.
    """
    with path.open("rb") as file:
        return _read(file, max_bytes, errors).removeprefix("\N{BYTE ORDER MARK}")


def read_record(path: Path, max_bytes: int = MAX_RECORD, errors: str = "strict") -> str:
    """`read_text` of a file that a program wrote into its folder: of a regular file alone.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: as `read_text`.
    """
    with open_regular(path) as file:
        return _read(file, max_bytes, errors)


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read its bytes, if it is a regular one.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    file = os.fdopen(os.open(os.fspath(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def _read(file: BinaryIO, max_bytes: int, errors: str) -> str:
    # A read takes memory for all that it may return: of a small file, only what it has.
    size = os.fstat(file.fileno()).st_size
    content = file.read(min(size, max_bytes) + 1)
    if len(content) > size:  # a pipe, a device, or a file that grows
        content += file.read(max_bytes + 1 - len(content))
    if len(content) > max_bytes:
        raise ValueError(f"it holds more than the {max_bytes >> 20} MiB that are read")
    return content.decode("utf-8", errors)
