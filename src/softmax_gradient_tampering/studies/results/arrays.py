"""Arrays of an .npz file that is not trusted: sizes are checked before memory is taken."""

import io
import math
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from softmax_gradient_tampering.files.text import open_regular

_MAGIC_LENGTH = 8  # magic and version
_LENGTHS = {(1, 0): 2, (2, 0): 4, (3, 0): 4}  # bytes of the header's length, by version
_MAX_HEADER = 4096


def read_arrays(
    path: Path, max_bytes: int, names: tuple[str, ...] = ()
) -> dict[str, npt.NDArray[Any]]:
    """Read arrays of an .npz file.

    Args:
        path: of the file.
        max_bytes: that all of them may take.
        names: of the arrays; all of the file by default.

    Raises:
        ValueError: the file is not one, an array is missing, of Python objects, of another size
            than its header says, or they are larger than allowed.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            for name in names or [entry.removesuffix(".npy") for entry in archive.namelist()]:
                arrays[name] = _read_array(archive, f"{name}.npy", max_bytes)
                max_bytes -= arrays[name].nbytes
    except Exception as error:  # zipfile, zlib and numpy raise what they meet in the file
        raise ValueError(f"{path.name} cannot be read ({type(error).__name__})") from error
    return arrays


def _read_array(archive: zipfile.ZipFile, name: str, max_bytes: int) -> npt.NDArray[Any]:
    with archive.open(name) as member:
        start = member.read(_MAGIC_LENGTH)
        version = npy.read_magic(io.BytesIO(start))
        length = member.read(_LENGTHS[version])
        header = member.read(min(int.from_bytes(length, "little"), _MAX_HEADER))
        shape, is_fortran, dtype = _parse(version, length + header)
        num_bytes = math.prod(shape) * dtype.itemsize
        size = archive.getinfo(name).file_size - len(start + length + header)
        if dtype.hasobject or num_bytes != size or num_bytes > max_bytes:
            raise ValueError("an array of another size than its header says, or a too large one")
        content = bytearray(member.read(num_bytes))
    return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")


@lru_cache(maxsize=256)
def _parse(version: tuple[int, int], header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of an array. The runs of a study have the same few headers."""
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    return read(io.BytesIO(header))
