"""Image folders, `root/split/class/image`, and the map-style data sets that timm names."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from timm.data import ImageDataset, create_dataset
from timm.data.readers.img_extensions import get_img_extensions
from timm.data.readers.reader_image_folder import ReaderImageFolder
from torch.utils.data import IterableDataset

from softmax_gradient_tampering.data.folder.image_file import open_image
from softmax_gradient_tampering.errors import UserError, first_line

SYNONYMS = (
    ("train", "training"),
    ("validation", "val", "valid", "eval", "evaluation"),
)


@contextmanager
def opening(what: str) -> Iterator[None]:
    """Turn what the system says of a folder, such as a name too long, into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{what}: {error.strerror or first_line(error)}") from error


def find_split(root: Path, split: str) -> Path:
    """The folder of a split: `root/split`, or under another usual name of it.

    Raises:
        UserError: root or the split is missing, or cannot be looked into.
    """
    with opening(f"--data_dir {root}"):
        return _find_split(root, split)


def _find_split(root: Path, split: str) -> Path:
    if not root.is_dir():
        raise UserError(f"--data_dir {root}: no such folder; give one that holds train/ and val/")
    names = [split]
    for synonyms in SYNONYMS:
        if split in synonyms:
            names += [name for name in synonyms if name != split]
    for name in names:
        if (root / name).is_dir():
            return root / name
    found = sorted(path.name for path in root.iterdir() if path.is_dir())
    raise UserError(
        f"--data_dir {root}: no folder {' or '.join(names)} in it "
        f"(it holds {', '.join(found[:8]) or 'no folders'}); name the right one with "
        f"{'--train-split' if split in SYNONYMS[0] else '--val-split'}"
    )


def open_folder(root: Path, train_split: str, val_split: str, mode: str) -> tuple[Any, Any]:
    """Open the two splits of an image folder with one class map, that of training.

    Args:
        root: folder of the splits.
        train_split: folder name of the training split.
        val_split: folder name of the validation split.
        mode: PIL's mode of the images, "RGB" or "L".

    Raises:
        UserError: a split is missing, a class has no image, validation has an unknown class, a
            link leads round in a circle, or a folder cannot be listed.
    """
    train_root, val_root = find_split(root, train_split), find_split(root, val_split)
    with opening(str(root)):
        for split_root in (train_root, val_root):
            _check_walk(split_root)
        empty = empty_classes(train_root)
    if empty:
        raise UserError(
            f"{train_root}: no image in class {', '.join(empty[:8])}; remove the folder or fill it"
        )
    train = _open(train_root, mode)
    classes = train.reader.class_to_idx
    own = _open(val_root, mode).reader.class_to_idx
    unknown = sorted(set(own) - set(classes))
    if unknown:
        raise UserError(
            f"{val_root}: class {', '.join(unknown[:8])} is not among the {len(classes)} classes "
            f"of {train_root}; the two splits need the same class folders"
        )
    return train, _open(val_root, mode, class_map=classes)


def open_timm_dataset(
    name: str, root: Path, train_split: str, val_split: str, mode: str
) -> tuple[Any, Any]:
    """Open a data set by timm's name for it, such as `torch/cifar10` or `hfds/...`.

    Raises:
        UserError: it cannot be opened, or is a stream, whose order cannot be set.
    """
    splits = []
    for split, is_training in ((train_split, True), (val_split, False)):
        try:
            dataset = create_dataset(
                name, root=str(root), split=split, is_training=is_training, input_img_mode=mode
            )
        except Exception as error:
            # timm and the libraries behind it raise anything here, ImportError to OSError.
            raise UserError(f"--dataset {name}: cannot open split {split!r}: {error}") from error
        if isinstance(dataset, IterableDataset):
            raise UserError(
                f"--dataset {name} is a stream: its order cannot be set, so a run could neither "
                "be resumed nor repeated exactly; use a folder or a map-style data set"
            )
        splits.append(dataset)
    train, val = (_classes(split) for split in splits)
    if train != val:
        differing = sorted(map(str, set(train) ^ set(val)))[:8]
        raise UserError(
            f"--dataset {name}: the splits differ in their classes ({', '.join(differing)}), so "
            "their labels do not mean the same; both need the same class folders"
        )
    return splits[0], splits[1]


def _classes(split: Any) -> list[Any]:
    return list(getattr(split, "class_to_idx", None) or getattr(split, "classes", None) or ())


class _FolderReader(ReaderImageFolder):
    """timm's, which would wait at a pipe named as an image without end."""

    def __getitem__(self, index: int) -> tuple[BinaryIO, int]:
        path, label = self.samples[index]
        return open_image(path), label


def _open(root: Path, mode: str, class_map: Any = "") -> Any:
    try:
        reader = _FolderReader(str(root), class_map)
    except RuntimeError as error:
        raise UserError(f"{root}: {error}") from error
    return ImageDataset(str(root), reader, input_img_mode=mode)


def walk_folders(
    root: Path, onerror: Callable[[OSError], None], on_loop: Callable[[str], None]
) -> Iterator[tuple[str, list[str]]]:
    """Folders and their files' names, with links followed, but not round in a circle."""
    above = {root: frozenset[tuple[int, int]]()}
    for folder, subfolders, names in os.walk(root, onerror=onerror, followlinks=True):
        status = Path(folder).stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above[Path(folder)]:
            subfolders.clear()
            on_loop(folder)
            continue
        for name in subfolders:
            above[Path(folder, name)] = above[Path(folder)] | {identity}
        yield folder, names


def _check_walk(root: Path) -> None:
    """timm's own walk would go round in links, and pass over what it cannot list in silence."""

    def cannot_be_listed(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be listed: {error.strerror}") from error

    def refuse(folder: str) -> None:
        raise UserError(f"{folder}: a link to a folder above it, to go round in; remove the link")

    for _ in walk_folders(root, cannot_be_listed, refuse):
        pass


def empty_classes(root: Path) -> list[str]:
    """The names of the folders in root that hold no image."""
    return [path.name for path in sorted(root.iterdir()) if _is_empty_class(path)]


def _is_empty_class(path: Path) -> bool:
    extensions = get_img_extensions(as_set=True)
    return path.is_dir() and not any(file.suffix.lower() in extensions for file in path.rglob("*"))
