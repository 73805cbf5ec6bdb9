"""filter_norms.npz: the norm of every convolution filter after every epoch."""

from pathlib import Path

import numpy as np

from softmax_gradient_tampering.studies.results.arrays import read_arrays
from softmax_gradient_tampering.studies.results.summary import FloatArray

_MAX_BYTES = 2**30  # a large net's filters over hundreds of epochs are a tenth of it


def read_filter_norms(folder: Path) -> dict[str, FloatArray]:
    """The arrays of a run folder's filter_norms.npz, `epochs` first; empty without one.

    Raises:
        ValueError: it cannot be read, or a layer's array is not (epochs, filters).
    """
    path = folder / "filter_norms.npz"
    if not path.exists():
        return {}
    loaded = read_arrays(path, _MAX_BYTES)
    if "epochs" not in loaded or any(array.dtype.kind not in "iuf" for array in loaded.values()):
        raise ValueError(f"{path.name} has no epochs, or arrays that are no numbers")
    arrays = {name: np.asarray(array, np.float64) for name, array in loaded.items()}
    epochs = arrays.pop("epochs")
    if epochs.ndim != 1 or any(
        norms.ndim != 2 or len(norms) != len(epochs) or norms.size == 0 for norms in arrays.values()
    ):
        raise ValueError(f"{path.name}: arrays that are not (epochs, filters)")
    return {"epochs": epochs, **arrays}
