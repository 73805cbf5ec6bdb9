"""What every test gets: a folder of its own to stand in, one thread, no network."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Relative paths, the default output among them, end up in the test's folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make_images() -> Callable[..., Path]:
    """Make root/split/class/image.jpg of smooth random colours, of odd sizes."""

    def make(
        root: Path, classes: dict[str, int], splits: tuple[str, ...] = ("train", "val")
    ) -> Path:
        generator = np.random.default_rng(0)
        for split in splits:
            for name, number in classes.items():
                folder = root / split / name
                folder.mkdir(parents=True)
                for index in range(number):
                    height, width = generator.integers(36, 60, 2)
                    coarse = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                    image = Image.fromarray(coarse).resize((int(width), int(height)))
                    image.save(folder / f"{index:03d}.jpg")
        return root

    return make
