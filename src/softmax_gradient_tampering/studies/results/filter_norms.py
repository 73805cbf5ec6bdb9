"""filter_norms.npz: the norm of every convolution filter after every epoch."""

from pathlib import Path

import numpy as np

from softmax_gradient_tampering.studies.results.recorded_run import FloatArray


def read_filter_norms(folder: Path) -> dict[str, FloatArray]:
    """The arrays of a run folder's filter_norms.npz, `epochs` first; empty without one.

    Raises:
        ValueError: it cannot be read, or a layer's array is not (epochs, filters).
    """
    path = folder / "filter_norms.npz"
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            loaded = {name: np.asarray(arrays[name], np.float64) for name in arrays.files}
        epochs = loaded.pop("epochs")
    except Exception as error:  # numpy raises what it meets in the file
        raise ValueError(f"{path.name} cannot be read ({type(error).__name__})") from error
    if epochs.ndim != 1 or any(
        norms.ndim != 2 or len(norms) != len(epochs) or norms.size == 0 for norms in loaded.values()
    ):
        raise ValueError(f"{path.name}: arrays that are not (epochs, filters)")
    return {"epochs": epochs, **loaded}
