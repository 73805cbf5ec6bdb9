"""CIFAR-10 and CIFAR-100 from local files: the python batches, or folders of images."""

import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from softmax_gradient_tampering.data.folder.image_file import open_image
from softmax_gradient_tampering.data.folder.image_folder import open_folder
from softmax_gradient_tampering.data.folder.labelled_files import LabelledFiles
from softmax_gradient_tampering.data.memory.loaders import Images
from softmax_gradient_tampering.errors import UserError


class _Batches(NamedTuple):
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: bytes
    meta: str
    names: bytes


_BATCHES = {
    10: _Batches(
        "cifar-10-batches-py",
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        ("test_batch",),
        b"labels",
        "batches.meta",
        b"label_names",
    ),
    100: _Batches(
        "cifar-100-python", ("train",), ("test",), b"fine_labels", "meta", b"fine_label_names"
    ),
}


def load_cifar(
    num_classes: int, root: Path, train_split: str, val_split: str
) -> tuple[Images, Images]:
    """The (training, test) sets, from `root` or the usual folder of python batches in it.

    Args:
        num_classes: 10 or 100.
        root: folder of the python batches, or of train/CLASS/IMAGE and val/CLASS/IMAGE.
        train_split: name of the training split in the folder layout.
        val_split: name of the validation split in the folder layout.

    Raises:
        UserError: the files are missing or not what they should be.
    """
    if num_classes not in _BATCHES:
        raise UserError(f"--cifar {num_classes}: there are CIFAR 10 and 100")
    batches = _BATCHES[num_classes]
    for folder in (root, root / batches.folder):
        if all((folder / name).is_file() for name in batches.train + batches.test):
            names = _class_names(folder / batches.meta, batches.names, num_classes)
            train, test = (
                _load_batches(folder, files, batches.labels, names)
                for files in (batches.train, batches.test)
            )
            return train, test
    if not root.is_dir():
        raise UserError(
            f"--cifar {num_classes}: no folder {root}; --data_dir must hold {batches.folder}/ "
            "or train/ and val/ with a folder of images per class"
        )
    opened = open_folder(root, train_split, val_split)
    train, test = (_load_images(split) for split in (opened.train, opened.val))
    if len(train.classes) != num_classes:
        raise UserError(
            f"--cifar {num_classes}: {root} has {len(train.classes)} classes, not {num_classes}"
        )
    return train, test


class _ArrayUnpickler(pickle.Unpickler):
    """Reads numpy arrays and builtin containers; any other global is refused, not called."""

    _allowed = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        if name == "_reconstruct":  # numpy 1 and 2 keep it in modules of different names
            return np.empty(0).__reduce__()[0]
        return super().find_class(module, name)


def _class_names(path: Path, key: bytes, num_classes: int) -> tuple[str, ...]:
    """The names that the file beside the batches holds; without it, the numbers from 0."""
    try:
        with path.open("rb") as file:
            names = [
                str(name, "utf-8") for name in _ArrayUnpickler(file, encoding="bytes").load()[key]
            ]
    except Exception:  # it is not there, or a damaged pickle, which raises anything
        names = []
    if len(names) != num_classes:
        names = list(map(str, range(num_classes)))
    return tuple(names)


def _load_batches(
    folder: Path, files: tuple[str, ...], labels_key: bytes, classes: tuple[str, ...]
) -> Images:
    pixels, labels = [], []
    for name in files:
        try:
            with (folder / name).open("rb") as file:
                batch = _ArrayUnpickler(file, encoding="bytes").load()
            pixels.append(np.asarray(batch[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32))
            labels += [int(label) for label in batch[labels_key]]
        except Exception as error:
            # A damaged pickle raises anything.
            raise UserError(f"{folder / name}: not a CIFAR batch ({error})") from error
    images = Images(torch.from_numpy(np.concatenate(pixels)), torch.tensor(labels), classes)
    if len(images.images) != len(labels) or not 0 <= min(labels) <= max(labels) < len(classes):
        raise UserError(f"{folder}: {len(images.images)} images do not fit their labels")
    return images


def _load_images(files: LabelledFiles) -> Images:
    pixels = []
    for path, _ in files:
        try:
            with open_image(path) as file, Image.open(file) as image:
                pixels.append(np.asarray(image.convert("RGB")))
        except OSError as error:
            raise UserError(f"{path}: cannot be read as an image ({error})") from error
        if pixels[-1].shape != (32, 32, 3):
            raise UserError(f"{path}: {image.width}x{image.height} pixels; CIFAR's are 32x32")
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return Images(images, files.labels, files.classes)
