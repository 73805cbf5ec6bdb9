"""Crops as numbers: inside the image, of the right size, and where torchvision puts them."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import CenterCrop, Resize

from softmax_gradient_tampering.data.dali.windows import (
    NUM_WINDOW_UNIFORMS,
    centred_windows,
    random_windows,
)

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
SIDES = st.integers(1, 300)


def uniforms(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((num, NUM_WINDOW_UNIFORMS))


@settings(derandomize=True, deadline=None)
@given(height=SIDES, width=SIDES, seed=st.integers(0, 999))
def test_random_windows_lie_in_the_image(height: int, width: int, seed: int) -> None:
    sizes = np.array([[height, width]] * 20)
    start, shape = random_windows(sizes, uniforms(20, seed), SCALE, RATIO)
    assert (start >= 0).all()
    assert (shape >= 1).all()
    assert (start + shape <= sizes).all()


def test_random_windows_have_the_area_and_ratio_that_was_asked_for() -> None:
    sizes = np.array([[400, 500]] * 5000)
    start, shape = random_windows(sizes, uniforms(5000), SCALE, RATIO)
    area, ratio = shape.prod(1) / (400 * 500), shape[:, 1] / shape[:, 0]
    rounding = 1.02  # of a side of at least 98 pixels, by half a pixel, twice
    assert ((area >= SCALE[0] / rounding) & (area <= SCALE[1])).all()
    assert ((ratio >= RATIO[0] / rounding) & (ratio <= RATIO[1] * rounding)).all()
    assert start[:, 0].min() == 0
    assert len(np.unique(start[:, 1])) > 300


def test_random_windows_are_distributed_as_timms() -> None:
    num = 4000
    random.seed(0)
    image = Image.new("L", (500, 375))
    timms = [RandomResizedCropAndInterpolation.get_params(image, SCALE, RATIO) for _ in range(num)]
    start, shape = random_windows(np.array([[375, 500]] * num), uniforms(num), SCALE, RATIO)
    ours = np.concatenate([start, shape], axis=1)
    theirs = np.array(timms)
    # Six standard errors of the difference of two means.
    error = 6 * np.sqrt((ours.var(0) + theirs.var(0)) / num)
    assert (abs(ours.mean(0) - theirs.mean(0)) < error).all()
    assert np.allclose(ours.std(0), theirs.std(0), rtol=0.1)


@pytest.mark.parametrize("size", [(300, 100), (100, 300), (120, 100)])
def test_where_no_window_fits_it_is_timms_centred_one(size: tuple[int, int]) -> None:
    too_large = (4.0, 5.0)
    expected = RandomResizedCropAndInterpolation.get_params(
        Image.new("L", size[::-1]), too_large, RATIO
    )
    start, shape = random_windows(np.array([size]), uniforms(1), too_large, RATIO)
    assert (*start[0], *shape[0]) == expected


@settings(derandomize=True, deadline=None, max_examples=50)
@given(height=SIDES, width=SIDES, crop=st.integers(8, 64), pct=st.sampled_from([0.5, 0.875, 1.0]))
def test_centred_windows_are_torchvisions(height: int, width: int, crop: int, pct: float) -> None:
    target = math.floor(crop / pct)
    resized, (start, shape) = centred_windows(np.array([[height, width]]), (crop, crop), pct)
    image = Resize(target)(Image.new("L", (width, height)))
    assert tuple(resized[0]) == image.size[::-1]
    rows = Image.fromarray(np.indices(image.size[::-1])[0].astype(np.int32))
    columns = Image.fromarray(np.indices(image.size[::-1])[1].astype(np.int32))
    cut = [np.asarray(CenterCrop(crop)(part)) for part in (rows, columns)]
    assert tuple(start[0]) == (cut[0].min(), cut[1].min())
    assert tuple(shape[0]) == (crop, crop)


@pytest.mark.parametrize("size", [(90, 160), (160, 90), (100, 100)])
def test_windows_that_are_not_square_are_timms(size: tuple[int, int]) -> None:
    crop = (48, 32)
    resized, (start, _) = centred_windows(np.array([size]), crop, 0.875)
    transform = create_transform((3, *crop), crop_pct=0.875, use_prefetcher=True)
    resize = transform.transforms[0](Image.new("RGB", size[::-1]))
    assert tuple(resized[0]) == resize.size[::-1]
    assert tuple(start[0]) == tuple(
        round((side - part) / 2) for side, part in zip(resized[0], crop, strict=True)
    )
