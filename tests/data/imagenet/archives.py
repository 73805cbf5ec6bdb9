"""ImageNet's official files, small: five classes, as they are downloaded."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from scipy.io import savemat

CLASSES = ("n02119789", "n01440764", "n01443537", "n01484850", "n01491361")  # by their numbers
NUM_TRAIN = {name: 2 + number for number, name in enumerate(CLASSES)}
GROUND_TRUTH = (3, 1, 1, 5, 2, 4, 3)
COUNTS = ("--classes", "5", "--train-images", "20", "--val-images", "7")


def image_bytes(number: int) -> bytes:
    """A JPEG, of one colour of its own."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 36), (number, 2 * number, 255 - number)).save(buffer, "JPEG")
    return buffer.getvalue()


TRAIN = {
    name: {f"{name}_{7 * k}.JPEG": image_bytes(10 * label + k) for k in range(NUM_TRAIN[name])}
    for label, name in enumerate(CLASSES)
}
VAL = {
    f"ILSVRC2012_val_{number:08d}.JPEG": image_bytes(100 + number)
    for number in range(1, len(GROUND_TRUTH) + 1)
}


def tar_of(
    files: dict[str, bytes],
    more: Iterable[tarfile.TarInfo] = (),
    mode: Literal["w:", "w:gz", "w:bz2", "w:xz"] = "w:",
) -> bytes:
    """An archive of files by their names, and of members that hold nothing."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in more:
            archive.addfile(member)
    return buffer.getvalue()


def devkit_files(ground_truth: tuple[int, ...] = GROUND_TRUTH) -> dict[str, bytes]:
    """The two files of the kit that matter: five classes, and one group of them."""
    fields = ("ILSVRC2012_ID", "WNID", "words", "num_children", "children", "num_train_images")
    rows = [
        (number, name, f"fish {number}", 0, np.zeros(0), NUM_TRAIN[name])
        for number, name in enumerate(CLASSES, start=1)
    ]
    rows.append((6, "n00001740", "entity", 5, np.arange(1.0, 6.0), 0))
    synsets = np.array(rows, dtype=[(name, object) for name in fields]).reshape(-1, 1)
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": synsets}, do_compression=True)
    text = "".join(f"{number}\n" for number in ground_truth)
    return {"meta.mat": buffer.getvalue(), "ILSVRC2012_validation_ground_truth.txt": text.encode()}


def write_official(root: Path) -> Path:
    """Write root/train.tar, root/val.tar and root/devkit.tar.gz."""
    root.mkdir(parents=True)
    archives = {f"{name}.tar": tar_of(images) for name, images in TRAIN.items()}
    (root / "train.tar").write_bytes(tar_of(archives))
    (root / "val.tar").write_bytes(tar_of(VAL))
    kit = {f"ILSVRC2012_devkit_t12/data/{name}": text for name, text in devkit_files().items()}
    kit = {"ILSVRC2012_devkit_t12/readme.txt": b"as published", **kit}
    (root / "devkit.tar.gz").write_bytes(tar_of(kit, mode="w:gz"))
    return root
