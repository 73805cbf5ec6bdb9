"""The development kit of ILSVRC2012: which class every validation image is of."""

import gzip
import io
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.errors import UserError, first_line

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
_MAX_BYTES = 2**26  # of the kit, unpacked; the official one has a fifth of that
_CLASS = re.compile(r"n[0-9]{8}")


@dataclass(frozen=True)
class Devkit:
    """What the development kit says.

    Attributes:
        classes: the class of every validation image, from image number 1 on.
        num_train: training images of every class; empty where it does not say.
    """

    classes: tuple[str, ...]
    num_train: dict[str, int]


def read_devkit(path: Path) -> Devkit:
    """Read the kit, an archive as downloaded or a folder of it unpacked.

    Raises:
        UserError: it is not the kit, or cannot be read.
    """
    try:
        files = _read_folder(path) if path.is_dir() else _read_archive(path)
        names, num_train = _read_meta(files[META])
        numbers = files[GROUND_TRUTH].decode("ascii").split()
        classes = tuple(names[int(number)] for number in numbers)
    except KeyError as error:
        raise UserError(
            f"--devkit {path}: {first_line(error)} is not in it; give ILSVRC2012_devkit_t12.tar.gz "
            "or the folder that it unpacks to"
        ) from error
    except Exception as error:  # damaged bytes make the readers raise anything
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"--devkit {path}: cannot be read ({reason})") from error
    return Devkit(classes, num_train)


def _read_archive(path: Path) -> dict[str, bytes]:
    with path.open("rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream: Any = gzip.GzipFile(fileobj=file) if is_packed else file
        content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"more than {_MAX_BYTES >> 20} MiB, which the kit does not have")
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            part = archive.extractfile(member) if member.isreg() else None
            if name in (GROUND_TRUTH, META) and part is not None:
                found[name] = part.read()
    return found


def _read_folder(path: Path) -> dict[str, bytes]:
    found = {}
    for folder in (path, path / "data", path / "ILSVRC2012_devkit_t12/data"):
        for name in (GROUND_TRUTH, META):
            if (folder / name).is_file():
                with (folder / name).open("rb") as file:
                    found[name] = file.read(_MAX_BYTES)
    return found


def _read_meta(content: bytes) -> tuple[dict[int, str], dict[str, int]]:
    """The classes by their numbers from 1 on, and their training images."""
    from scipy.io import loadmat

    synsets = loadmat(io.BytesIO(content), squeeze_me=True)["synsets"]
    names, num_train = {}, {}
    for synset in synsets:
        if int(synset["num_children"]):  # what groups classes is none
            continue
        name = str(synset["WNID"])
        if not _CLASS.fullmatch(name):
            raise ValueError(f"a class {name!r:.40}, and not one as n01440764")
        names[int(synset["ILSVRC2012_ID"])] = name
        num_train[name] = int(synset["num_train_images"])
    return names, num_train
