"""Data: order and augmentation by counter; loaders with one face."""

from softmax_gradient_tampering.data.factory import DataOptions, Dataset, open_dataset
from softmax_gradient_tampering.data.loader import Loader, TrainLoader

__all__ = ["DataOptions", "Dataset", "Loader", "TrainLoader", "open_dataset"]
