"""What a file is that was given for a checkpoint, by its first bytes or the names of its parts."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

_FIRST_BYTES = (
    (b"\x1f\x8b", "packed with gzip; unpack it first, with gunzip"),
    (b"BZh", "packed with bzip2; unpack it first, with bunzip2"),
    (b"\xfd7zXZ", "packed with xz; unpack it first, with unxz"),
    (b"(\xb5/\xfd", "packed with zstd; unpack it first, with unzstd"),
    (b"version https://git-lfs", "a Git LFS pointer in the file's place; git lfs pull fetches it"),
    (b"\x89HDF", "an HDF5 file; save the weights with torch.save or as safetensors"),
    (b"\x93NUMPY", "a NumPy array; save the weights with torch.save or as safetensors"),
)
_PAGES = (b"<!doctype", b"<html", b"<?xml")
_NUM_FIRST = 512


def describe_other_kind(file: BinaryIO) -> str | None:
    """What a file is that no checkpoint is, and what to do; None if that is not known."""
    file.seek(0)
    first = file.read(_NUM_FIRST)
    if not first:
        return "an empty file"
    for beginning, what in _FIRST_BYTES:
        if first.startswith(beginning):
            return what
    if first.lstrip().lower().startswith(_PAGES):
        return "a web page in the file's place; download it again"
    if first[257:262] == b"ustar":
        return "a tar archive; give a file in it"
    return None


def describe_parts(names: Collection[str]) -> str | None:
    """What a zip archive is whose parts have these names; None if it may be a checkpoint."""
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript program; give the weights, of torch.save(model.state_dict(), ...)"
    if any(name.endswith(".npy") for name in names):
        return "NumPy arrays; save the weights with torch.save or as safetensors"
    if not any(name.endswith("data.pkl") for name in names):
        return "a zip archive without weights of torch.save"
    return None


def is_safetensors(file: BinaryIO) -> bool:
    """Whether a file begins as one of safetensors: the length of a JSON header, and the header."""
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(0)
    first = file.read(9)
    file.seek(0)
    return first[8:] == b"{" and int.from_bytes(first[:8], "little") <= size


def describe_folder(folder: Path) -> str:
    """What checkpoints a folder holds that was given for one."""
    endings = (".pth.tar", ".pth", ".pt", ".ckpt", ".bin", ".safetensors")
    names = sorted(path.name for path in folder.iterdir() if path.name.endswith(endings))
    names = [name for name in names if not name.startswith(".")]
    if not names:
        return "a folder, without a checkpoint in it; give a file"
    return f"a folder; give a file in it: {', '.join(names[:6])}{', ...' * (len(names) > 6)}"
