"""Whether image files can be read: every one is decoded, by several threads."""

import hashlib
import io
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from softmax_gradient_tampering.data.folder.image_file import (
    is_of_content,
    open_image,
    read_failure,
    read_image,
)

_CHUNK = 32
# PIL's kinds, by the endings that the loaders take for images.
_KINDS_BY_SUFFIX = {
    **dict.fromkeys((".jpg", ".jpeg"), ("JPEG", "MPO")),
    **dict.fromkeys((".ppm", ".pgm"), ("PPM",)),
    **dict.fromkeys((".tif", ".tiff"), ("TIFF",)),
    ".png": ("PNG",),
    ".bmp": ("BMP", "DIB"),
    ".webp": ("WEBP",),
}


class Inspection(NamedTuple):
    """What was found of an image file.

    Attributes:
        num_bytes: size of the file.
        mtime_ns: when it was last changed, in nanoseconds.
        height, width: of the image, in pixels; 0 if it cannot be read.
        kind: PIL's name of the format, such as JPEG; empty if it is none.
        problem: why it cannot be trained on; empty if it can.
        notes: what is unusual about an image that can be read.
        digest: SHA-256 of the file, where it was asked for.
        lasts: whether it is so until the file changes; not so of a failure to open or read it.
    """

    num_bytes: int = 0
    mtime_ns: int = 0
    height: int = 0
    width: int = 0
    kind: str = ""
    problem: str = ""
    notes: tuple[str, ...] = ()
    digest: str = ""
    lasts: bool = True


def inspect_image(path: str, with_digest: bool = False) -> Inspection:
    """Decode an image file, to its end, as the loaders do; never raises for a bad file."""
    num_bytes = mtime_ns = 0
    kind = digest = ""
    try:
        status = Path(path).stat()
        num_bytes, mtime_ns = status.st_size, status.st_mtime_ns
        with open_image(path) as file:
            content = file.read()
        digest = hashlib.sha256(content).hexdigest() if with_digest else ""
        with Image.open(io.BytesIO(content)) as image:
            kind = image.format or ""
            notes = _notes(image, path)
        width, height = read_image(io.BytesIO(content), "RGB").size
    except Exception as error:  # image decoders raise anything from OSError to SyntaxError
        return Inspection(
            num_bytes,
            mtime_ns,
            kind=kind,
            problem=read_failure(error),
            digest=digest,
            lasts=is_of_content(error),
        )
    return Inspection(num_bytes, mtime_ns, height, width, kind, "", notes, digest)


def inspect_images(
    paths: Sequence[str],
    num_threads: int,
    known: Mapping[str, Inspection] | None = None,
    with_digest: bool = False,
) -> Iterator[Inspection]:
    """Inspect image files with several threads, in order.

    Args:
        paths: the files.
        num_threads: of them; PIL's decoders run side by side.
        known: earlier inspections, taken over for files of the same size and time.
        with_digest: hash the files, too.
    """
    known = known or {}

    def inspect_chunk(start: int) -> list[Inspection]:
        chunk = paths[start : start + _CHUNK]
        return [_unchanged(path, known) or inspect_image(path, with_digest) for path in chunk]

    with warnings.catch_warnings():
        # PIL warns of large images and odd metadata; what matters becomes a note or a problem.
        warnings.simplefilter("ignore")
        executor = ThreadPoolExecutor(num_threads, thread_name_prefix="inspect")
        try:
            for chunk in executor.map(inspect_chunk, range(0, len(paths), _CHUNK)):
                yield from chunk
        finally:
            # Where all are read, nothing is waited for; where this is left before, a file on a
            # disk that does not answer must not hold it.
            executor.shutdown(wait=False, cancel_futures=True)


def _unchanged(path: str, known: Mapping[str, Inspection]) -> Inspection | None:
    earlier = known.get(path)
    if earlier is None or not os.access(path, os.R_OK):
        return None
    try:
        status = Path(path).stat()
    except OSError:
        return None
    is_same = (status.st_size, status.st_mtime_ns) == (earlier.num_bytes, earlier.mtime_ns)
    return earlier if is_same else None


def _notes(image: Image.Image, path: str) -> tuple[str, ...]:
    notes = []
    suffix = Path(path).suffix.lower()
    if image.format not in _KINDS_BY_SUFFIX.get(suffix, (image.format,)):
        notes.append(f"{image.format} named {suffix}")
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        notes.append(f"{image.n_frames} frames; the first is used")  # type: ignore[attr-defined]
    if image.mode.startswith("I"):
        notes.append("16-bit grey, read as 8-bit")
    if image.mode == "CMYK":
        notes.append("CMYK, read as RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        notes.append("transparency, which is left out")
    if min(image.size) == 1:
        notes.append(f"{image.width}x{image.height} pixels")
    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or 0):
        notes.append(f"very large, {image.width}x{image.height} pixels")
    return tuple(notes)
