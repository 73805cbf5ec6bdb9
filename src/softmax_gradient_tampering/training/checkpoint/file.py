"""The file of a checkpoint: its checksums are compared, and no code in it is run.

A file counts as damaged only if that is certain. One that merely cannot be read now may be whole,
and an older checkpoint used in its place would lose what it holds.
"""

import argparse
import errno
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError

from softmax_gradient_tampering.errors import UserError, first_line
from softmax_gradient_tampering.files.text import open_regular
from softmax_gradient_tampering.training.checkpoint.kind import (
    describe_folder,
    describe_other_kind,
    describe_parts,
    is_safetensors,
)

_CHUNK = 2**20


class DamagedCheckpointError(UserError):
    """A checkpoint that is certainly not what was written: cut short, or with other content."""


def read_checkpoint_file(path: Path) -> Any:
    """What a file of torch.save holds, of any form.

    Raises:
        DamagedCheckpointError: it is damaged.
        UserError: it is missing, cannot be read, or asks for code to be run.
    """
    is_zip = False
    try:
        # The bytes whose checksums were compared are the ones that are loaded.
        with open_regular(path) as file:
            if is_safetensors(file):
                return safetensors.torch.load(file.read())
            what = describe_other_kind(file)
            if what is not None:
                raise DamagedCheckpointError(f"{path}: not a checkpoint but {what}")
            is_zip = _check_parts(path, file)
            file.seek(0)
            with torch.serialization.safe_globals([argparse.Namespace]):
                return torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint") from error
    except IsADirectoryError as error:
        raise DamagedCheckpointError(
            f"{path}: not a checkpoint but {describe_folder(path)}"
        ) from error
    except (OSError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EINVAL, errno.EISDIR):
            # A folder, a pipe or a device; or a file that has been cut short, where torch has
            # looked for a place before its start.
            raise DamagedCheckpointError(
                f"{path}: not a whole checkpoint ({_reason(error)})"
            ) from error
        raise UserError(f"{path}: not read ({_reason(error)}); it may be whole") from error
    except Exception as error:
        raise _unpickling_error(path, error, is_zip) from error


def _unpickling_error(path: Path, error: Exception, is_zip: bool) -> UserError:
    """What the unpickler's exception says of a file, whose checksums are right where it has any.

    Damaged bytes make the unpickler raise anything, from IndexError to UnicodeDecodeError.
    """
    if isinstance(error, pickle.UnpicklingError):
        # Not torch's own words, which advise to load it all the same.
        asked = re.search(r"GLOBAL (\S{1,60})", str(error))
        found = f"it asks for {asked[1]}" if asked else "it is not of tensors and plain values"
        error_class = UserError if is_zip else DamagedCheckpointError
        return error_class(f"{path}: not loaded, damaged or unsafe: {found}")
    # Where the checksums are right, what torch's reader says of the file's parts tells of damage,
    # and any other error may be this machine's.
    is_damaged = (
        not is_zip
        or isinstance(error, ValueError | SafetensorError)
        or any(name in str(error) for name in ("PytorchStreamReader", "inline_container"))
    )
    error_class = DamagedCheckpointError if is_damaged else UserError
    return error_class(f"{path}: not a whole checkpoint ({_reason(error)})")


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error):.200}"


def _check_parts(path: Path, file: BinaryIO) -> bool:
    """Compare the checksums (CRC-32) of a file's parts; returns whether it has any.

    torch.load does not compare the checksums that torch.save writes. Files of the format before
    torch 1.6 have none.

    Raises:
        DamagedCheckpointError: one does not match, or the parts are not torch's.
        OSError, MemoryError: it cannot be read.
    """
    try:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            while file.read(_CHUNK):  # is_zipfile mistakes a failure to read for another format
                pass
            return False
        _check_zip(path, file)
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # BadZipFile to NotImplementedError, by the bit that is wrong
        raise DamagedCheckpointError(f"{path}: damaged ({_reason(error)})") from error
    return True


def _check_zip(path: Path, file: BinaryIO) -> None:
    with zipfile.ZipFile(file) as parts:
        what = describe_parts(parts.namelist())
        if what is not None:
            raise DamagedCheckpointError(f"{path}: not a checkpoint but {what}")
        for part in parts.infolist():
            if part.compress_type != zipfile.ZIP_STORED:
                # torch never compresses; what would be unpacked may be of any size.
                raise DamagedCheckpointError(
                    f"{path}: not loaded: its part {part.filename!r:.60} is compressed"
                )
        damaged = parts.testzip()
    if damaged is not None:
        raise DamagedCheckpointError(
            f"{path}: damaged, the checksum of {damaged:.60} does not match"
        )
