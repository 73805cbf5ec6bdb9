"""The map-style data sets that timm knows by a name, such as `torch/cifar10` or `hfds/...`."""

from pathlib import Path
from typing import Any

from timm.data import create_dataset
from torch.utils.data import IterableDataset

from softmax_gradient_tampering.errors import UserError


def open_timm_dataset(
    name: str, root: Path, train_split: str, val_split: str, mode: str
) -> tuple[Any, Any]:
    """Open a data set by timm's name for it.

    Raises:
        UserError: it cannot be opened, or is a stream, whose order cannot be set.
    """
    splits = []
    for split, is_training in ((train_split, True), (val_split, False)):
        try:
            dataset = create_dataset(
                name, root=str(root), split=split, is_training=is_training, input_img_mode=mode
            )
        except Exception as error:
            # timm and the libraries behind it raise anything here, ImportError to OSError.
            raise UserError(f"--dataset {name}: cannot open split {split!r}: {error}") from error
        if isinstance(dataset, IterableDataset):
            raise UserError(
                f"--dataset {name} is a stream: its order cannot be set, so a run could neither "
                "be resumed nor repeated exactly; use a folder or a map-style data set"
            )
        splits.append(dataset)
    train, val = (_classes(split) for split in splits)
    if train != val:
        differing = sorted(map(str, set(train) ^ set(val)))[:8]
        raise UserError(
            f"--dataset {name}: the splits differ in their classes ({', '.join(differing)}), so "
            "their labels do not mean the same; both need the same class folders"
        )
    return splits[0], splits[1]


def _classes(split: Any) -> list[Any]:
    return list(getattr(split, "class_to_idx", None) or getattr(split, "classes", None) or ())
