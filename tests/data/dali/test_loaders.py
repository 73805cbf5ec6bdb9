"""The DALI loader: every sample as often as it should be, from any batch on, timm's pixels."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import Mixup

from softmax_gradient_tampering.data.dali.loaders import DaliDataset, require_dali
from softmax_gradient_tampering.data.factory import SampleDataset, open_dataset
from softmax_gradient_tampering.data.holdout import hold_out
from softmax_gradient_tampering.data.inspection.images import inspect_images
from softmax_gradient_tampering.data.loader import Batch, Loader
from softmax_gradient_tampering.errors import UserError
from tests.data.batches import OPTIONS as PLAIN_OPTIONS
from tests.data.batches import assert_equal

pytest.importorskip("nvidia.dali", reason="DALI is an optional extra")

OPTIONS = replace(
    PLAIN_OPTIONS,
    num_workers=2,
    mean=(0.0, 0.0, 0.0),
    std=(1 / 255, 1 / 255, 1 / 255),  # the model's input is the pixels, from 0 to 255
)
CLASSES = {"class1": 7, "class10": 6, "class2": 5}


@pytest.fixture
def folder(tmp_path: Path, make_images: Callable[..., Path]) -> Path:
    return make_images(tmp_path / "photos", CLASSES)


def open_dali(folder: Path, **settings: Any) -> DaliDataset:
    dataset = open_folder(folder)
    assert dataset.files is not None
    paths = [path for split in dataset.files for path in split.paths]
    return DaliDataset(dataset, dict(zip(paths, inspect_images(paths, 2), strict=True)), **settings)


def open_folder(folder: Path) -> SampleDataset:
    dataset = open_dataset(str(folder))
    assert isinstance(dataset, SampleDataset)
    return dataset


def batches(loader: Loader, epoch: int = 0, start: int = 0) -> list[Batch]:
    return list(loader.epoch(epoch, start))


def number_images(folder: Path) -> None:
    """Make every image one colour of its own, which no crop or flip changes."""
    for split in ("train", "val"):
        for number, path in enumerate(sorted((folder / split).rglob("*.jpg"))):
            Image.new("RGB", (40 + number, 50), (10 * number, 128, 255 - 10 * number)).save(path)


def identities(found: list[Batch]) -> list[int]:
    """The images' numbers, read off their red."""
    red = torch.cat([batch.images[:, 0, 16, 16] for batch in found])
    return (red / 10).round().int().tolist()


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_three_epochs_see_each_sample_once_and_drop_what_is_documented(
    folder: Path, shards: int
) -> None:
    number_images(folder)
    dataset = open_dali(folder)
    options = [
        replace(OPTIONS, batch_size=4 // shards, num_processes=shards, process=process)
        for process in range(shards)
    ]
    loaders = [dataset.train_loader(option) for option in options]
    evaluation = [dataset.evaluation_loader(option) for option in options]
    orders = []
    for epoch in range(3):
        seen = [number for each in loaders for number in identities(batches(each, epoch))]
        # 18 samples in batches of 4: the last 2 are left out, others every epoch.
        assert Counter(Counter(seen).values()) == {1: 16}
        assert [each.num_samples for each in loaders] == [16] * shards
        orders.append(tuple(seen))
        seen = [number for each in evaluation for number in identities(batches(each, epoch))]
        assert sorted(seen) == list(range(18))
    assert len(set(orders)) == 3


def test_shards_are_parts_of_the_one_batch(folder: Path) -> None:
    dataset = open_dali(folder)
    whole = batches(dataset.train_loader(OPTIONS), 1)
    halves = [
        batches(
            dataset.train_loader(replace(OPTIONS, batch_size=2, num_processes=2, process=process)),
            1,
        )
        for process in range(2)
    ]
    for one, left, right in zip(whole, *halves, strict=True):
        assert torch.equal(one.images, torch.cat([left.images, right.images]))
        assert torch.equal(one.labels, torch.cat([left.labels, right.labels]))


AUGMENTED = replace(
    OPTIONS,
    vflip=0.5,
    erasing={"probability": 0.6, "mode": "pixel"},
    mixup=Mixup(mixup_alpha=0.4, num_classes=3),
)


@pytest.mark.parametrize("start", [1, 3])
def test_an_epoch_begun_in_the_middle_goes_on_bitwise(folder: Path, start: int) -> None:
    dataset = open_dali(folder)
    expected = batches(dataset.train_loader(AUGMENTED), 2)
    assert_equal(batches(dataset.train_loader(AUGMENTED), 2, start), expected[start:])


def test_what_came_before_and_the_number_of_threads_change_nothing(folder: Path) -> None:
    dataset = open_dali(folder)
    expected = batches(dataset.train_loader(AUGMENTED), 1)
    loader = dataset.train_loader(replace(AUGMENTED, num_workers=1))
    left = loader.epoch(0)
    next(left)  # this epoch is not finished, and its iterator still there
    assert_equal(batches(loader, 1), expected)
    assert_equal(batches(loader, 1), expected)


def test_epochs_and_seeds_differ_in_order_and_augmentation(folder: Path) -> None:
    dataset = open_dali(folder)
    first, second = (
        batches(dataset.train_loader(OPTIONS)),
        batches(dataset.train_loader(OPTIONS), 1),
    )
    assert not torch.equal(first[0].images, second[0].images)
    other = batches(dataset.train_loader(replace(OPTIONS, seed=8)))
    assert not torch.equal(first[0].images, other[0].images)


def test_order_and_labels_are_those_of_the_folder_loader(folder: Path) -> None:
    ours = batches(open_dali(folder).train_loader(OPTIONS), 1)
    theirs = batches(open_folder(folder).train_loader(replace(OPTIONS, num_workers=0)), 1)
    labels = [batch.labels.tolist() for batch in ours]
    assert labels == [batch.labels.tolist() for batch in theirs]


def test_the_class_map_is_the_folder_loaders_in_natural_order(folder: Path) -> None:
    dataset = open_dali(folder)
    for checked in (dataset.train, dataset.val):
        assert {Path(path).parent.name for path in checked.files.paths} == set(CLASSES)
        for path, label in checked.files:
            assert label == ["class1", "class2", "class10"].index(Path(path).parent.name)


# The largest difference of a pixel, of 255, to timm's loader, and the mean one. PIL rounds to
# 8 bits between the horizontal and the vertical pass, DALI once; bicubic overshoots in between.
TOLERANCES = {"bilinear": (1, 0.25), "bicubic": (16, 0.3)}


@pytest.mark.parametrize("interpolation", TOLERANCES)
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_evaluation_pixels_are_timms(
    folder: Path, interpolation: str, size: tuple[int, int]
) -> None:
    options = replace(
        OPTIONS, interpolation=interpolation, input_size=(3, *size), crop_pct=0.9, num_workers=0
    )
    ours = batches(open_dali(folder).evaluation_loader(options))
    theirs = batches(open_folder(folder).evaluation_loader(options))
    largest, mean = TOLERANCES[interpolation]
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.labels, other.labels)
        difference = (one.images - other.images).abs()
        assert difference.max() <= largest
        assert difference.mean() <= mean


def test_training_without_augmentation_is_timms_but_for_the_antialiasing(folder: Path) -> None:
    options = replace(OPTIONS, no_aug=True, num_workers=0)
    theirs = batches(open_folder(folder).train_loader(options))
    smooth = batches(open_dali(folder, antialias=True).train_loader(options))
    for one, other in zip(smooth, theirs, strict=True):
        assert (one.images - other.images).abs().max() <= TOLERANCES["bilinear"][0]
    plain = batches(open_dali(folder).train_loader(options))
    assert not torch.equal(plain[0].images, smooth[0].images)


def gradient_images(folder: Path) -> None:
    """Images that grow brighter to the right in red, and downwards in green."""
    for path in folder.rglob("*.jpg"):
        down, right = np.indices((60, 60)) * 4
        Image.fromarray(np.stack([right, down, 0 * down], 2).astype(np.uint8)).save(
            path, format="PNG"
        )


@pytest.mark.parametrize(
    ("flips", "red", "green"),
    [((0.0, 0.0), 1, 1), ((1.0, 0.0), -1, 1), ((0.0, 1.0), 1, -1), ((1.0, 1.0), -1, -1)],
)
def test_flips_are_as_asked(folder: Path, flips: tuple[float, float], red: int, green: int) -> None:
    gradient_images(folder)
    options = replace(OPTIONS, hflip=flips[0], vflip=flips[1], scale=(0.5, 1.0))
    for batch in batches(open_dali(folder).train_loader(options)):
        rightwards = batch.images[:, 0, :, -1] - batch.images[:, 0, :, 0]
        downwards = batch.images[:, 1, -1] - batch.images[:, 1, 0]
        assert (rightwards.sign() == red).all()
        assert (downwards.sign() == green).all()


def test_scale_and_ratio_are_as_asked(folder: Path) -> None:
    gradient_images(folder)
    options = replace(OPTIONS, hflip=0.0, scale=(0.25, 0.25), ratio=(1.0, 1.0))
    for batch in batches(open_dali(folder).train_loader(options)):
        spans = [
            (batch.images[:, 0, :, -1] - batch.images[:, 0, :, 0]).mean(1),
            (batch.images[:, 1, -1] - batch.images[:, 1, 0]).mean(1),
        ]
        for span in spans:  # half of a side of 60 pixels, from the first to the last centre
            assert ((span / 4 - 30).abs() < 2).all()


def test_random_interpolation_is_bilinear_or_bicubic_by_sample(folder: Path) -> None:
    dataset = open_dali(folder)
    kinds = {
        kind: torch.cat(
            [
                batch.images
                for batch in batches(
                    dataset.train_loader(replace(OPTIONS, train_interpolation=kind))
                )
            ]
        )
        for kind in ("random", "bilinear", "bicubic")
    }
    is_linear, is_cubic = (
        (kinds["random"] == kinds[kind]).flatten(1).all(1) for kind in ("bilinear", "bicubic")
    )
    assert (is_linear ^ is_cubic).all()
    assert is_linear.any()
    assert is_cubic.any()


def test_mean_std_and_grey_images_are_as_asked(folder: Path) -> None:
    number_images(folder)
    options = replace(OPTIONS, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    (batch, *_) = batches(open_dali(folder).evaluation_loader(options))
    assert batch.images[:, 1].sub((128 / 255 - 0.5) / 0.25).abs().max() < 2 / 255 / 0.25
    grey = replace(OPTIONS, input_size=(1, 32, 32), mean=(0.0,), std=(1.0,))
    (batch, *_) = batches(open_dali(folder).evaluation_loader(grey))
    assert batch.images.shape == (5, 1, 32, 32)


def test_images_that_are_unusual_are_read_as_by_the_folder_loader(folder: Path) -> None:
    photo = Image.open(folder / "val/class1/000.jpg").resize((40, 40))
    names = sorted((folder / "val").rglob("*.jpg"))
    grey = np.asarray(photo.convert("L")).astype(np.uint16) * 257
    photo.convert("CMYK").save(names[0])
    Image.fromarray(grey).save(names[1], format="PNG")
    photo.quantize(16).save(names[2], format="PNG", transparency=bytes([0, 128, *[255] * 14]))
    photo.save(names[3], format="PNG", save_all=True, append_images=[photo.rotate(90)])
    photo.resize((1, 1)).save(names[4])
    ours = batches(open_dali(folder).evaluation_loader(OPTIONS))
    theirs = batches(open_folder(folder).evaluation_loader(replace(OPTIONS, num_workers=0)))
    for one, other in zip(ours, theirs, strict=True):
        assert (one.images - other.images).abs().max() <= TOLERANCES["bilinear"][0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"class2/001\.jpg: cannot be read: an empty file, of 0 bytes"),
        (b"short", r"class2/001\.jpg: has changed: 5 bytes, and had \d+"),
        (None, r"class2/001\.jpg: cannot be read: no such file"),
        (b"no image any more", r"class2/001\.jpg: DALI cannot decode it: "),
    ],
)
def test_a_file_gone_bad_later_is_named(folder: Path, content: bytes | None, message: str) -> None:
    dataset = open_dali(folder)
    path = folder / "train/class2/001.jpg"
    size = path.stat().st_size
    path.unlink()
    if content is not None:  # of the same size, it is DALI that finds out
        path.write_bytes(content.ljust(size, b".") if len(content) > 5 else content)
    loader = dataset.train_loader(replace(OPTIONS, batch_size=18))
    with pytest.raises(UserError, match=message):
        batches(loader)


def test_a_part_is_held_out_as_of_the_folder_loader(folder: Path) -> None:
    ours, theirs = (
        hold_out(dataset, 0.25, 3) for dataset in (open_dali(folder), open_folder(folder))
    )
    assert (ours.num_train, ours.num_val) == (theirs.num_train, theirs.num_val)
    options = replace(OPTIONS, num_workers=0)
    for one, other in zip(
        batches(ours.evaluation_loader(options)),
        batches(theirs.evaluation_loader(replace(options, num_workers=0))),
        strict=True,
    ):
        assert torch.equal(one.labels, other.labels)
        assert (one.images - other.images).abs().max() <= TOLERANCES["bilinear"][0]


def test_decoding_on_a_gpu_needs_one() -> None:
    with pytest.raises(UserError, match="--dali-gpu decodes on a GPU, and this run is on cpu"):
        require_dali(torch.device("cpu"), on_gpu=True)
