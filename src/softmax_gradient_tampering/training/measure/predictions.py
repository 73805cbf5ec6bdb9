"""predictions.npz: the logits of the final model on the validation set, in its own order."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from softmax_gradient_tampering.data.loader import Loader
from softmax_gradient_tampering.data.transfer import Prefetched
from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.files.whole import write_whole
from softmax_gradient_tampering.training.processes.distributed import Processes
from softmax_gradient_tampering.training.step.precision import Precision

FILE = "predictions.npz"
# 64 MB of float32: all of CIFAR-100's test set sixteen times over, a third of ImageNet's.
MAX_VALUES = 2**24


def check_size(num_samples: int, num_classes: int) -> None:
    """Refuse a file that would be too large to keep one of in every run folder.

    Raises:
        UserError: it would.
    """
    if num_samples * num_classes > MAX_VALUES:
        raise UserError(
            f"--save-predictions: {num_samples:,} images of {num_classes:,} classes are more than "
            f"the {MAX_VALUES:,} logits that are kept; leave it out"
        )


@torch.inference_mode()
def predict(
    model: nn.Module,
    loader: Loader,
    processes: Processes,
    precision: Precision,
    after_batch: Callable[[], None],
) -> tuple[np.ndarray, np.ndarray]:
    """The logits (N, C) float32 and labels (N,) int64 of every sample, in data-set order.

    All processes take part, and all get the result. After each batch that all of them have,
    `after_batch` is called; it may raise.
    """
    logits, labels = [], []
    num_common = -processes.most([-len(loader)])[0]
    was_training = model.training
    model.eval()
    for number, batch in enumerate(Prefetched(loader.epoch(0), processes.device)):
        with precision.forward():
            logits.append(model(batch.images).float().cpu())
        labels.append(batch.labels.cpu())
        if number < num_common:
            after_batch()
    model.train(was_training)
    shards = processes.gather(
        (torch.cat(logits).numpy(), torch.cat(labels).numpy()) if logits else None
    )
    parts = [shard for shard in shards if shard is not None]
    num_classes = parts[0][0].shape[1]
    all_logits = np.empty((loader.num_samples, num_classes), dtype=np.float32)
    all_labels = np.empty(loader.num_samples, dtype=np.int64)
    for rank, shard in enumerate(shards):
        if shard is not None:  # sample i is process i mod n's
            all_logits[rank :: processes.number], all_labels[rank :: processes.number] = shard
    return all_logits, all_labels


def write_predictions(folder: Path, logits: np.ndarray, labels: np.ndarray) -> None:
    """Write predictions.npz whole."""
    write_whole(folder / FILE, lambda file: np.savez_compressed(file, logits=logits, labels=labels))
