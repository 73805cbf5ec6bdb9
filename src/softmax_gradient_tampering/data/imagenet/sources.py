"""ImageNet's images, out of the archives as downloaded or out of unpacked folders.

A name that is not ImageNet's is refused, so that no member of an archive says where it is
written to. Links, devices and the like are never followed or made.
"""

import re
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from softmax_gradient_tampering.data.folder.listing import is_hidden
from softmax_gradient_tampering.data.imagenet.devkit import Devkit
from softmax_gradient_tampering.errors import UserError

_MAX_BYTES = 2**26  # of an image; the largest of ImageNet has a quarter of that
_CLASS = re.compile(r"n[0-9]{8}")
_CLASS_ARCHIVE = re.compile(r"(n[0-9]{8})\.tar")
_TRAIN_IMAGE = re.compile(r"(n[0-9]{8})_[0-9]{1,8}\.JPEG")
_VAL_IMAGE = re.compile(r"ILSVRC2012_val_([0-9]{8})\.JPEG")


class SourceImage(NamedTuple):
    """An image to be sorted into the folder of its class.

    Attributes:
        class_name: its class.
        name: of its file.
        num_bytes: of its file.
        path: its file, if it has one of its own.
        open: opens it; before the next image is asked for.
    """

    class_name: str
    name: str
    num_bytes: int
    path: Path | None
    open: Callable[[], IO[bytes]]


def train_images(source: Path) -> Iterator[SourceImage]:
    """The training images: of the archive of archives, or of a folder.

    The folder may hold the archives of the classes, or the folders that they unpack to.

    Raises:
        UserError: it holds what ImageNet does not.
        OSError, TarError: it cannot be read.
    """
    if source.is_dir():
        yield from _train_of_folder(source)
        return
    with tarfile.open(source, "r:") as archive:
        for member in archive.getmembers():
            found = _CLASS_ARCHIVE.fullmatch(member.name)
            if not found:
                raise _unexpected(member.name, "the archive of a class, such as n01440764.tar")
            yield from _train_of_archive(_open_member(archive, member), found[1])


def val_images(source: Path, devkit: Devkit) -> Iterator[SourceImage]:
    """The validation images: of the archive, or of a folder that they lie in.

    Raises:
        UserError: it holds what ImageNet does not.
        OSError, TarError: it cannot be read.
    """

    def class_of(name: str) -> str:
        found = _VAL_IMAGE.fullmatch(name)
        number = int(found[1]) if found else 0
        if not 1 <= number <= len(devkit.classes):
            last = f"ILSVRC2012_val_{len(devkit.classes):08d}.JPEG"
            raise _unexpected(name, f"a validation image, the last of which is {last}")
        return devkit.classes[number - 1]

    if source.is_dir():
        for path in _entries(source):
            yield _of_file(path, class_of(path.name))
        return
    with tarfile.open(source, "r:") as archive:
        for member in archive.getmembers():
            yield _of_member(archive, member, class_of(member.name))


def _train_of_folder(source: Path) -> Iterator[SourceImage]:
    for path in _entries(source):
        archive = _CLASS_ARCHIVE.fullmatch(path.name)
        if archive and path.is_file():
            with path.open("rb") as file:
                yield from _train_of_archive(file, archive[1])
        elif not (_CLASS.fullmatch(path.name) and path.is_dir()):
            raise _unexpected(path.name, "a class's archive or folder, such as n01440764.tar")
        elif not path.with_name(f"{path.name}.tar").is_file():  # which is whole, where this is not
            for image in _entries(path):
                yield _of_file(image, _checked_class(image.name, path.name))


def _train_of_archive(file: IO[bytes], class_name: str) -> Iterator[SourceImage]:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive.getmembers():
            yield _of_member(archive, member, _checked_class(member.name, class_name))


def _checked_class(name: str, class_name: str) -> str:
    found = _TRAIN_IMAGE.fullmatch(name)
    if not found or found[1] != class_name:
        raise _unexpected(name, f"an image of {class_name}, such as {class_name}_10026.JPEG")
    return class_name


def _of_member(archive: tarfile.TarFile, member: tarfile.TarInfo, class_name: str) -> SourceImage:
    def open_image() -> IO[bytes]:
        return _open_member(archive, member)

    _check_size(member.name, member.size)
    return SourceImage(class_name, member.name, member.size, None, open_image)


def _open_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    part = archive.extractfile(member) if member.isreg() and not member.issparse() else None
    if part is None:
        raise _unexpected(member.name, "a plain file")
    return part


def _of_file(path: Path, class_name: str) -> SourceImage:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise _unexpected(path.name, "a plain file")
    _check_size(path.name, status.st_size)
    return SourceImage(class_name, path.name, status.st_size, path, lambda: path.open("rb"))


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not is_hidden(path.name))


def _check_size(name: str, num_bytes: int) -> None:
    if not 0 < num_bytes <= _MAX_BYTES:
        raise UserError(f"{name:.80}: {num_bytes:,} bytes, which no image of ImageNet has")


def _unexpected(name: str, expected: str) -> UserError:
    return UserError(
        f"{name:.80}: not what the official files hold, {expected}; give the files as downloaded, "
        "or folders of nothing but what they hold"
    )
