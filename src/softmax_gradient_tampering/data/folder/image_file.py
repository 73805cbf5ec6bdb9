"""Reading an image file, of whatever kind, as 8-bit pixels of one mode."""

import errno
import os
import stat
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from softmax_gradient_tampering.errors import first_line

_MODES_16_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_MODES_WITHOUT_RANGE = ("I", "F")
_MODES_OF_PALETTES = ("P", "PA")


def open_image(path: str) -> BinaryIO:
    """Open an image file, if it is a regular one: a pipe would be waited for without end.

    Raises:
        OSError: it cannot be opened, is no regular file, or is empty.
    """
    status = os.stat(path)  # noqa: PTH116 - to make a Path takes a tenth of a small image's time
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    if not status.st_size:
        raise OSError("an empty file, of 0 bytes")
    return open(path, "rb")  # noqa: PTH123 - likewise; the caller closes it


def read_image(file: str | Path | IO[bytes], mode: str) -> Image.Image:
    """Read an image file's first frame.

    16-bit pixels keep their upper 8 bits, where PIL alone would cut them off at 255.
    Transparency is left out, as DALI and torchvision do: what counts is the colour beneath it.
    An orientation in the file's metadata is not applied.

    Args:
        file: path, or open file of bytes.
        mode: "RGB" or "L".

    Returns:
        The image, all of it decoded.

    Raises:
        Exception: it cannot be read; decoders raise anything from OSError to SyntaxError.
            `read_failure` puts it into words.
    """
    with Image.open(file) as image:
        if image.mode in _MODES_16_BIT or (image.mode == "I" and image.format == "PNG"):
            pixels = np.asarray(image).astype(np.uint32) >> 8
            return Image.fromarray(pixels.astype(np.uint8)).convert(mode)
        if image.mode in _MODES_WITHOUT_RANGE:
            raise ValueError(f"pixels of mode {image.mode}, whose range is not known")
        if image.mode in _MODES_OF_PALETTES:
            return image.convert("RGBA").convert(mode)
        return image.convert(mode)


def read_failure(error: Exception) -> str:
    """Why an image could not be read, in one line."""
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return f"more than {limit:,} pixels, which PIL takes for a decompression bomb"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of a kind that PIL does not know"
    if isinstance(error, FileNotFoundError):
        path = Path(error.filename or "")
        return describe_link(path) if path.is_symlink() else "no such file"
    if isinstance(error, OSError):
        return error.strerror or first_line(error)
    return f"{type(error).__name__}: {first_line(error)}"


def describe_link(path: Path) -> str:
    """What is wrong with a link that cannot be followed."""
    return f"a link to {path.readlink()}, which is absent"


def is_of_content(error: Exception) -> bool:
    """Whether a failure to read is the file's own, and not that of the moment.

    The operating system's errors have a number, PIL's of the same type have none.
    """
    is_memory = isinstance(error, MemoryError) or "out of memory" in str(error)
    return not is_memory and getattr(error, "errno", None) is None
