"""scikit-learn's handwritten digits: 1,797 real 8x8 images that ship with it."""

from functools import cache

import numpy as np
import torch

from softmax_gradient_tampering.data.memory.loaders import Images

# The split is one for all seeds: the first quarter of every class, in the set's own order.
TEST_FRACTION = 0.25


@cache  # a study's worker trains run after run on them; their file is text, and slow to read
def load_digits() -> tuple[Images, Images]:
    """The digits as (training, test) sets of 1,347 and 450 images, 17 grey levels."""
    from sklearn.datasets import load_digits as load

    digits = load()
    # Grey levels 0 to 16, spread over uint8.
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        of_class = (labels == label).nonzero().squeeze(1)
        is_test[of_class[: round(TEST_FRACTION * len(of_class))]] = True
    classes = tuple(str(name) for name in digits.target_names)
    train, test = (Images(images[part], labels[part], classes) for part in (~is_test, is_test))
    return train, test
