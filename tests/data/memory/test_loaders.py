"""Sets held in memory: their batches, augmentation and mixing."""

from dataclasses import replace

import torch
from timm.data import Mixup

from softmax_gradient_tampering.data.factory import MemoryDataset, open_dataset
from softmax_gradient_tampering.data.memory.loaders import Images
from tests.data.batches import OPTIONS, assert_equal, batches

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


def test_batches_are_the_same_wherever_in_an_epoch_it_begins() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (630, 3, 16, 16), dtype=torch.uint8, generator=generator)
    split = Images(images, torch.arange(630) % 10, tuple("0123456789"))
    dataset = MemoryDataset("random", (split, split), ((0.5,) * 3, (0.25,) * 3), pad=2)
    mixup = Mixup(mixup_alpha=1.0, num_classes=10)
    options = replace(OPTIONS, input_size=(3, 16, 16), batch_size=50, mixup=mixup)
    whole = batches(dataset, options)
    assert [len(batch.labels) for batch in whole] == [50] * 12 + [30]
    for start in (1, 4, 12):
        assert_equal(batches(dataset, options, start=start), whole[start:])
