"""Worker processes: any number of them, any start, any number of processes, one run."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from timm.data import Mixup

from softmax_gradient_tampering.data.factory import Dataset, SampleDataset, open_dataset
from softmax_gradient_tampering.errors import UserError
from tests.data.batches import OPTIONS, assert_equal, batches


@pytest.fixture
def photos(tmp_path: Path, make_images: Callable[..., Path]) -> SampleDataset:
    root = make_images(tmp_path / "photos", {"ant": 6, "bee": 5, "cat": 3})
    dataset = open_dataset(str(root))
    assert isinstance(dataset, SampleDataset)
    return dataset


AUGMENTED = replace(
    OPTIONS, auto_augment="rand-m9-mstd0.5", erasing={"probability": 0.6, "mode": "pixel"}
)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_do_not_change_the_batches(photos: Dataset, num_workers: int) -> None:
    expected = batches(photos, AUGMENTED)
    assert_equal(batches(photos, replace(AUGMENTED, num_workers=num_workers)), expected)


def test_an_epoch_begun_in_the_middle_goes_on_as_it_would_have(photos: Dataset) -> None:
    options = replace(AUGMENTED, mixup=Mixup(mixup_alpha=0.4, num_classes=3))
    assert_equal(batches(photos, options, start=1), batches(photos, options)[1:])


def test_epochs_differ_in_order_and_augmentation(photos: Dataset) -> None:
    first, second = batches(photos, OPTIONS, 0), batches(photos, OPTIONS, 1)
    assert not torch.equal(first[0].images, second[0].images)


def test_two_processes_see_the_samples_of_one(photos: Dataset) -> None:
    one = batches(photos, AUGMENTED)
    halves = [
        batches(photos, replace(AUGMENTED, batch_size=2, num_processes=2, process=process))
        for process in range(2)
    ]
    for whole, left, right in zip(one, *halves, strict=True):
        assert torch.equal(whole.images, torch.cat([left.images, right.images]))


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_evaluation_sees_every_sample_once(photos: Dataset, num_processes: int) -> None:
    labels: list[int] = []
    for process in range(num_processes):
        options = replace(OPTIONS, num_processes=num_processes, process=process)
        for batch in photos.evaluation_loader(options).epoch(0):
            labels += batch.labels.tolist()
    assert sorted(labels) == [0] * 6 + [1] * 5 + [2] * 3


def test_augmentation_splits_hold_the_clean_image_first(photos: Dataset) -> None:
    options = replace(OPTIONS, aug_splits=3, auto_augment="rand-m9-mstd0.5", num_workers=1)
    (batch, *_) = batches(photos, options)
    assert len(batch.images) == 12
    assert len(batch.labels) == 12
    clean, augmented, _ = batch.images.split(4)
    assert not torch.equal(clean, augmented)


def test_an_unreadable_image_is_named(photos: Dataset, tmp_path: Path) -> None:
    (tmp_path / "photos/train/bee/001.jpg").write_bytes(b"\xff\xd8 not an image")
    with pytest.raises(UserError, match=r"bee/001\.jpg: cannot be read as an image"):
        batches(photos, replace(OPTIONS, num_workers=1))


def test_a_file_gone_bad_after_the_check_is_told_how_to_go_on(
    photos: SampleDataset, tmp_path: Path
) -> None:
    assert photos.files is not None
    photos.keep_files(*photos.files)
    for split in ("train", "val"):
        (tmp_path / f"photos/{split}/bee/001.jpg").unlink()
    for loader in (photos.train_loader(OPTIONS), photos.evaluation_loader(OPTIONS)):
        with pytest.raises(UserError, match=r"bee/001\.jpg: .*\(no such file\); it could be") as e:
            list(loader.epoch(0))
        assert "--resume auto finds it and leaves it out" in str(e.value)
        assert "--on-bad-image" not in str(e.value)


@pytest.mark.parametrize(
    ("make", "reason"),
    [(os.mkfifo, "not a regular file"), (Path.touch, "an empty file, of 0 bytes")],
)
def test_a_pipe_and_an_empty_file_are_refused_unread(
    photos: Dataset, tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "photos/train/bee/001.jpg"
    path.unlink()
    make(path)
    with pytest.raises(UserError, match=rf"bee/001\.jpg: cannot be read .*\({reason}\)"):
        batches(photos, OPTIONS)
