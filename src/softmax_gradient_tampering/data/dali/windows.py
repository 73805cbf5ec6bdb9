"""Where images are cut: the random and the centred crop, as numbers, for whole batches.

The rules are those of torchvision's RandomResizedCrop, Resize and CenterCrop, which timm's
transforms use; the random one draws its numbers from counters.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]  # (n, 2) heights and widths, or tops and lefts

_ATTEMPTS = 10
NUM_WINDOW_UNIFORMS = 2 * _ATTEMPTS + 2


class Windows(NamedTuple):
    """start (n, 2): top and left; shape (n, 2): height and width; whole pixels."""

    start: Numbers
    shape: Numbers


def random_windows(
    sizes: Numbers, uniforms: Numbers, scale: tuple[float, ...], ratio: tuple[float, ...]
) -> Windows:
    """Random windows of a share of the image's area, of a random aspect ratio.

    Ten attempts are made; where none fits into the image, the window is the largest centred
    one of an allowed ratio.

    Args:
        sizes: (n, 2) heights and widths of the images.
        uniforms: (n, NUM_WINDOW_UNIFORMS) numbers in [0, 1).
        scale: smallest and largest share of the area.
        ratio: smallest and largest width / height, drawn uniformly in the logarithm.
    """
    height, width = sizes[:, :1].astype(np.float64), sizes[:, 1:].astype(np.float64)
    shares, positions = uniforms[:, :_ATTEMPTS], uniforms[:, _ATTEMPTS : 2 * _ATTEMPTS]
    area = height * width * (scale[0] + shares * (scale[1] - scale[0]))
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = np.exp(low + positions * (high - low))
    attempts = np.rint(np.stack([np.sqrt(area / aspect), np.sqrt(area * aspect)], axis=2))
    fits = ((attempts >= 1) & (attempts <= sizes[:, None])).all(axis=2)
    rows = np.arange(len(sizes))
    shape = attempts[rows, fits.argmax(axis=1)]
    start = np.floor(uniforms[:, 2 * _ATTEMPTS :] * (sizes - shape + 1))
    found = fits.any(axis=1)[:, None]
    largest = _largest_of_ratio(sizes, ratio)
    shape = np.where(found, shape, largest)
    start = np.where(found, start, (sizes - largest) // 2)
    return Windows(start.astype(np.int32), shape.astype(np.int32))


def centred_windows(
    sizes: Numbers, crop_size: tuple[int, int], crop_pct: float
) -> tuple[Numbers, Windows]:
    """The size to resize an image to, and the window in the middle of that.

    Args:
        sizes: (n, 2) heights and widths of the images.
        crop_size: height and width of the window.
        crop_pct: the window's share of the resized image's shorter side.

    Returns:
        The resized images' sizes (n, 2), and the windows in them.
    """
    target = [math.floor(side / crop_pct) for side in crop_size]
    if target[0] == target[1]:  # the shorter side; the longer one is cut to whole pixels
        shorter = sizes.min(axis=1, keepdims=True)
        resized = np.where(sizes == shorter, target[0], (target[0] * sizes) // shorter)
    else:  # as timm resizes for crops that are not square
        shrink = (sizes / np.array(target)).min(axis=1, keepdims=True)
        resized = np.rint(sizes / shrink)
    resized = resized.astype(np.int32)
    start = np.rint((resized - np.array(crop_size)) / 2).astype(np.int32)
    shape = np.broadcast_to(np.array(crop_size, dtype=np.int32), resized.shape)
    return resized, Windows(start, shape)


def _largest_of_ratio(sizes: Numbers, ratio: tuple[float, ...]) -> Numbers:
    height, width = sizes[:, 0], sizes[:, 1]
    aspect = width / height
    limited_width = np.where(aspect > ratio[1], np.rint(height * ratio[1]), width)
    limited_height = np.where(aspect < ratio[0], np.rint(width / ratio[0]), height)
    return np.maximum(np.stack([limited_height, limited_width], axis=1), 1)
