"""Evaluation images: the published crop, interpolation and pixels of the published models."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from softmax_gradient_tampering.data.factory import SampleDataset, open_dataset
from softmax_gradient_tampering.data.options import DataOptions
from softmax_gradient_tampering.models import PUBLISHED_MODELS, create_model
from softmax_gradient_tampering.training.config.arguments import parse_arguments
from softmax_gradient_tampering.training.processes.distributed import Processes
from softmax_gradient_tampering.training.setup.data import create_data_options
from tests.training.deterministic_fill import uniform

GOLDEN = Path(__file__).parents[1] / "golden" / "evaluation-preprocessing.csv"
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of images, of the sizes that the golden file names."""
    with GOLDEN.open(newline="") as file:
        sizes = sorted({row["size"] for row in csv.DictReader(file)})
    for number, size in enumerate(sizes):
        width, height = map(int, size.split("x"))
        shape = (height // 8 + 2, width // 8 + 2, 3)
        values = uniform(f"img{size}", int(np.prod(shape))).reshape(shape)
        image = Image.fromarray(((values + 1) * 127.5).astype(np.uint8))
        for split in ("train", "val"):
            path = tmp_path / split / "ab"[number % 2] / f"{size}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return tmp_path


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("side", [64, 224])
def test_evaluation_pixels_are_the_published_ones(
    folder: Path, interpolation: str, side: int
) -> None:
    dataset = open_dataset(str(folder))
    options = DataOptions(
        device=CPU, seed=0, batch_size=1, eval_batch_size=1, num_workers=0,
        input_size=(3, side, side), mean=(0.0,) * 3, std=(1 / 255,) * 3,
        interpolation=interpolation, crop_pct=0.875,
    )  # fmt: skip
    sums = [
        batch.images.double().round().sum() for batch in dataset.evaluation_loader(options).epoch(0)
    ]
    assert isinstance(dataset, SampleDataset)
    names = [Path(path).stem for path, _ in dataset.val]
    with GOLDEN.open(newline="") as file:
        expected = {
            row["size"]: int(row["checksum"])
            for row in csv.DictReader(file)
            if (row["interpolation"], int(row["side"])) == (interpolation, side)
        }
    assert {name: int(value) for name, value in zip(names, sums, strict=True)} == expected


@pytest.mark.parametrize("name", PUBLISHED_MODELS)
def test_every_published_model_is_evaluated_as_published(folder: Path, name: str) -> None:
    config = parse_arguments(["--model", name, "--data_dir", str(folder)])
    dataset = open_dataset(str(folder))
    processes = Processes(1, 0, CPU)
    with torch.device("meta"):
        model = create_model(name)
    options = create_data_options(config, dataset, model, processes)
    bilinear = name in ("resnet18", "resnet18_wobn")
    assert options.interpolation == ("bilinear" if bilinear else "bicubic")
    assert (options.crop_pct, options.input_size) == (0.875, (3, 224, 224))
