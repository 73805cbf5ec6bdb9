"""Data: order and augmentation by counter; loaders with one face."""

from softmax_gradient_tampering.data.factory import Dataset, open_dataset
from softmax_gradient_tampering.data.loader import Loader, TrainLoader
from softmax_gradient_tampering.data.options import DataOptions

__all__ = ["DataOptions", "Dataset", "Loader", "TrainLoader", "open_dataset"]
