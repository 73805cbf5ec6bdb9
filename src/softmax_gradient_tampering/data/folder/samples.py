"""Samples that are read and transformed one at a time, by timm's transforms."""

from collections.abc import Callable
from typing import Any, NamedTuple

from PIL import Image

from softmax_gradient_tampering.data.folder.image_file import (
    open_image,
    read_failure,
    read_image,
)
from softmax_gradient_tampering.data.folder.labelled_files import LabelledFiles
from softmax_gradient_tampering.data.order import seed_generators
from softmax_gradient_tampering.errors import UserError


class Unreadable(NamedTuple):
    """What is given in the place of a sample that cannot be read."""

    name: str
    reason: str


class Samples:
    """Transformed samples of a map-style data set; the augmentation is f(seed, epoch, index).

    Args:
        base: image files, or a data set of timm or torchvision without a transform.
        transforms: applied in turn; with augmentation splits (base, augmentation, final).
        mode: PIL's mode of the images.
        seed: the run's seed, or None where the transform draws no random numbers.
        num_splits: augmentation splits: the clean image and num_splits - 1 augmented ones.
        were_checked: whether bad files were looked for and left out before.
    """

    def __init__(
        self,
        base: Any,
        transforms: tuple[Callable[[Any], Any], ...],
        mode: str,
        seed: int | None,
        num_splits: int = 0,
        were_checked: bool = False,
    ) -> None:
        self.base = base
        self.transforms = transforms
        self.mode = mode
        self.seed = seed
        self.num_splits = num_splits
        self.were_checked = were_checked

    def __len__(self) -> int:
        return len(self.base)

    def read(self, epoch: int, index: int) -> tuple[tuple[Any, ...], int] | Unreadable:
        """The images (C, H, W) uint8 of a sample, one for every split, and its label."""
        try:
            image, label = self._open(index)
        except Exception as error:
            # Image decoders raise anything from OSError to SyntaxError.
            return Unreadable(self.name(index), read_failure(error))
        if self.seed is not None:
            seed_generators(self.seed, epoch, index)
        if not self.num_splits:
            return (self.transforms[0](image),), label
        start, augment, finish = self.transforms
        image = start(image)
        splits = [image] + [augment(image) for _ in range(self.num_splits - 1)]
        return tuple(finish(split) for split in splits), label

    def _open(self, index: int) -> tuple[Image.Image, int]:
        if isinstance(self.base, LabelledFiles):
            path, label = self.base[index]
            with open_image(path) as file:
                return read_image(file, self.mode), label
        if not hasattr(self.base, "reader"):
            image, label = self.base[index]
            return image.convert(self.mode), int(label)
        file, label = self.base.reader[index]
        with file:
            return read_image(file, self.mode), int(label)

    def name(self, index: int) -> str:
        """A sample's file, or its number where it is none."""
        if isinstance(self.base, LabelledFiles):
            return self.base.path(index)
        reader = getattr(self.base, "reader", None)
        return str(reader.filename(index, absolute=True)) if reader else f"sample {index}"

    def error(self, found: Unreadable) -> UserError:
        """The error that ends a run at a sample that cannot be read."""
        if self.were_checked:
            fix = (
                "it could be read when the files were checked; put it back, or go on without: "
                "--resume auto finds it and leaves it out, but not in the middle of an epoch; if "
                "refused there, go on from last.pth.tar with another --experiment"
            )
        else:
            fix = (
                "repair or remove the file, then go on with --resume; --on-bad-image skip leaves "
                "such files out from the start"
            )
        return UserError(
            f"{found.name}: cannot be read as an image ({found.reason}); {fix}", is_local=True
        )
