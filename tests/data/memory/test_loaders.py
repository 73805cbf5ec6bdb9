"""Sets held in memory: their batches, augmentation and mixing."""

from dataclasses import replace

import torch
from timm.data import Mixup

from softmax_gradient_tampering.data.factory import open_dataset
from tests.data.batches import OPTIONS, batches

DIGITS = replace(OPTIONS, input_size=(1, 8, 8), mean=(0.5,), std=(0.5,), batch_size=500)


def test_the_digits_keep_their_last_small_batch() -> None:
    digits = open_dataset(None)
    sizes = [len(batch.labels) for batch in batches(digits, DIGITS)]
    assert sizes == [500, 500, 347]
    assert sum(sizes) + digits.num_val == 1797


def test_translation_and_flips_are_of_the_sample() -> None:
    digits = open_dataset(None)
    digits.pad = 2  # type: ignore[attr-defined]
    together = batches(digits, DIGITS)
    in_small = batches(digits, replace(DIGITS, batch_size=100))
    assert torch.equal(
        torch.cat([batch.images for batch in together]),
        torch.cat([batch.images for batch in in_small]),
    )
    plain = batches(digits, replace(DIGITS, no_aug=True))
    assert not torch.equal(plain[0].images, together[0].images)


def test_mixing_gives_distributions_and_keeps_the_labels() -> None:
    options = replace(DIGITS, mixup=Mixup(mixup_alpha=1.0, num_classes=10, label_smoothing=0.0))
    (batch, *_) = batches(open_dataset(None), options)
    assert batch.targets.shape == (500, 10)
    assert torch.allclose(batch.targets.sum(1), torch.ones(500))
    assert batch.labels.shape == (500,)
    off = replace(options, mixup_off_epoch=1)
    (unmixed, *_) = batches(open_dataset(None), off, epoch=1)
    assert torch.equal(unmixed.targets.argmax(1), unmixed.labels)
    assert (unmixed.targets.max(1).values == 1).all()
