"""CIFAR from local files: python batches, folders, and files that are neither."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from softmax_gradient_tampering.data.factory import open_dataset
from softmax_gradient_tampering.data.memory.cifar import load_cifar
from softmax_gradient_tampering.errors import UserError


def write_batches(folder: Path, names: list[str], key: bytes, num_classes: int) -> None:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in names:
        labels = [int(label) for label in generator.integers(0, num_classes, 4)]
        data = generator.integers(0, 256, (4, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({b"data": data, key: labels}, protocol=2))


def test_python_batches_of_cifar_10(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    write_batches(folder, names, b"labels", 10)
    train, test = load_cifar(10, tmp_path, "train", "validation")
    assert train.images.shape == (20, 3, 32, 32)
    assert test.images.shape == (4, 3, 32, 32)
    raw = pickle.loads((folder / "data_batch_1").read_bytes())
    assert torch.equal(train.images[0, 1, 0], torch.from_numpy(raw[b"data"][0][1024:1056]))
    assert train.labels[:4].tolist() == raw[b"labels"]


def test_python_batches_of_cifar_100(tmp_path: Path) -> None:
    write_batches(tmp_path / "cifar-100-python", ["train", "test"], b"fine_labels", 100)
    dataset = open_dataset(str(tmp_path), cifar=100)
    assert (dataset.num_classes, dataset.num_train, dataset.num_val) == (100, 4, 4)
    assert dataset.class_names == tuple(map(str, range(100)))


@pytest.mark.parametrize("content", [b"no pickle", pickle.dumps({b"fine_label_names": [b"a"]})])
def test_python_batches_name_their_classes(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "cifar-100-python"
    write_batches(folder, ["train", "test"], b"fine_labels", 100)
    names = [b"name %d" % number for number in range(100)]
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": names}, protocol=2))
    assert open_dataset(str(tmp_path), cifar=100).class_names[7] == "name 7"
    (folder / "meta").write_bytes(content)
    assert open_dataset(str(tmp_path), cifar=100).class_names[7] == "7"


def test_a_folder_of_images(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for label in range(10):
            folder = tmp_path / split / f"class{label}"
            folder.mkdir(parents=True)
            Image.new("RGB", (32, 32), (label, 2 * label, 0)).save(folder / "0.png")
    train, _ = load_cifar(10, tmp_path, "train", "validation")
    assert train.labels.tolist() == list(range(10))
    assert train.images[7, :, 0, 0].tolist() == [7, 14, 0]


def test_code_in_a_batch_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
            return Path.touch.__globals__["os"].mkdir, (str(tmp_path / "ran"),)

    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test"):
        (folder / name).write_bytes(pickle.dumps({b"data": Evil()}))
    with pytest.raises(UserError, match="not a CIFAR batch"):
        load_cifar(100, tmp_path, "train", "validation")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("number", "message"), [(10, "must hold cifar-10-batches-py/"), (7, "there are CIFAR 10 and")]
)
def test_missing_files_are_one_line(tmp_path: Path, number: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_cifar(number, tmp_path / "nowhere", "train", "validation")


def test_cifar_needs_a_folder() -> None:
    with pytest.raises(UserError, match="--cifar 10 needs --data_dir"):
        open_dataset(None, cifar=10)
