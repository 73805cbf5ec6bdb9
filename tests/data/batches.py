"""Options of a loader on small images, and what a loader gives."""

import torch

from softmax_gradient_tampering.data.factory import Dataset
from softmax_gradient_tampering.data.loader import Batch
from softmax_gradient_tampering.data.options import DataOptions

OPTIONS = DataOptions(
    device=torch.device("cpu"),
    seed=7,
    batch_size=4,
    eval_batch_size=5,
    num_workers=0,
    input_size=(3, 32, 32),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    interpolation="bilinear",
    crop_pct=0.875,
)


def batches(dataset: Dataset, options: DataOptions, epoch: int = 0, start: int = 0) -> list[Batch]:
    """The training batches of an epoch, from batch number `start` on."""
    return list(dataset.train_loader(options).epoch(epoch, start))


def assert_equal(ours: list[Batch], theirs: list[Batch]) -> None:
    """Bitwise, and not because there are none."""
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        for tensor, expected in zip(one, other, strict=True):
            assert torch.equal(tensor, expected)
