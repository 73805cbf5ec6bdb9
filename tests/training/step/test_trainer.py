"""The training step: what the optimizer gets to see."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from softmax_gradient_tampering.data.loader import Batch
from softmax_gradient_tampering.loss import TamperedCrossEntropyLoss
from softmax_gradient_tampering.training.processes.distributed import Processes
from softmax_gradient_tampering.training.step.precision import Precision
from softmax_gradient_tampering.training.step.tally import Tally
from softmax_gradient_tampering.training.step.trainer import Clipping, Trainer
from tests.training.runs import train
from tests.training.step.epoch import train_epoch

CPU = torch.device("cpu")


class FixedLoader:
    """Batches of given sizes out of fixed random data."""

    def __init__(self, sizes: list[int], dtype: torch.dtype = torch.float64) -> None:
        generator = torch.Generator().manual_seed(0)
        self.batch_sizes = sizes
        self.num_samples = sum(sizes)
        images = torch.randn(self.num_samples, 6, generator=generator, dtype=dtype)
        labels = torch.randint(4, (self.num_samples,), generator=generator)
        self.images, self.labels = images.split(sizes), labels.split(sizes)

    def __len__(self) -> int:
        return len(self.batch_sizes)

    def epoch(self, epoch: int, start: int = 0):
        for images, labels in list(zip(self.images, self.labels, strict=True))[start:]:
            yield Batch(images, labels, labels)


def make_trainer(accumulation: int = 1, alpha: float = 0.25, **changes: object) -> Trainer:
    torch.manual_seed(0)
    model = nn.Linear(6, 4).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    loss_fn = TamperedCrossEntropyLoss(alpha)
    return Trainer(
        model,
        optimizer,
        loss_fn,
        Precision(CPU, None),
        accumulation=accumulation,
        **changes,  # type: ignore[arg-type]
    )


def weight_of(trainer: Trainer) -> torch.Tensor:
    assert isinstance(trainer.model, nn.Linear)
    return trainer.model.weight


def weights_after_an_epoch(trainer: Trainer, loader: FixedLoader) -> torch.Tensor:
    for _ in train_epoch(trainer, loader):
        pass
    return weight_of(trainer).detach()


@pytest.mark.parametrize(
    ("sizes", "accumulation", "big"),
    [
        ([4, 4, 4, 4], 2, [8, 8]),
        ([4, 4, 4], 2, [8, 4]),  # a tail of one batch is an optimizer step of its own
        ([4, 4, 2], 3, [10]),  # a small last batch counts by its size
        ([3] * 7, 4, [12, 9]),
    ],
)
def test_accumulated_batches_are_one_big_batch(
    sizes: list[int], accumulation: int, big: list[int]
) -> None:
    ours = weights_after_an_epoch(make_trainer(accumulation), FixedLoader(sizes))
    expected = weights_after_an_epoch(make_trainer(), FixedLoader(big))

    assert torch.allclose(ours, expected, rtol=1e-12, atol=1e-14)


def test_the_step_is_that_of_the_tempered_cross_entropy() -> None:
    loader = FixedLoader([8])
    trainer = make_trainer()
    before = weight_of(trainer).detach().clone()
    logits = trainer.model(loader.images[0])
    (F.cross_entropy(0.25 * logits, loader.labels[0]) / 0.25).backward()
    gradient = weight_of(trainer).grad
    assert gradient is not None
    expected = before - 0.5 * gradient
    trainer.optimizer.zero_grad()
    assert torch.allclose(weights_after_an_epoch(trainer, loader), expected, rtol=1e-12)


@pytest.mark.parametrize("mode", ["norm", "value", "agc"])
def test_clipping_bounds_the_step(mode: str) -> None:
    loader = FixedLoader([8])
    free, clipped = make_trainer(), make_trainer()
    clipped.clipping = Clipping(1e-4, mode, list(clipped.model.parameters()))
    before = weight_of(free).detach().clone()
    moved = (weights_after_an_epoch(free, loader) - before).norm()
    assert 0 < (weights_after_an_epoch(clipped, loader) - before).norm() < 0.01 * moved


def test_the_range_of_the_logits_gradient_is_the_true_one() -> None:
    loader = FixedLoader([8, 8])
    trainer = make_trainer(accumulation=2)
    trainer.precision = Precision(CPU, torch.float16)
    trainer.precision.dtype = None  # the scale alone, without half arithmetic
    expected = []
    for images, labels in zip(loader.images, loader.labels, strict=True):
        logits = trainer.model(images).detach()
        p = torch.softmax(0.25 * logits, 1) - F.one_hot(labels, 4)
        expected.append((p / 8).aminmax())
    outcomes = train_epoch(trainer, loader, wants_grad_range=True)
    for outcome, (low, high) in zip(outcomes, expected, strict=True):
        assert outcome.grad_range is not None
        assert torch.allclose(torch.stack(outcome.grad_range), torch.stack([low, high]))


def test_the_tally_is_of_every_sample() -> None:
    loader, tally = FixedLoader([5, 5, 3]), Tally(CPU)
    trainer = make_trainer()
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.0)
    list(train_epoch(trainer, loader, tally))
    logits = torch.cat([trainer.model(images) for images in loader.images])
    labels = torch.cat(loader.labels)
    loss, correct, count = tally.total(Processes(1, 0, CPU))
    assert loss / count == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)
    assert (correct, count) == ((logits.argmax(1) == labels).sum().item(), 13)


def test_an_overflow_is_skipped_and_counted() -> None:
    trainer = make_trainer()
    trainer.precision = Precision(CPU, torch.float16)
    trainer.precision.dtype = None
    loader = FixedLoader([4, 4])
    loader.images = (loader.images[0] * torch.inf, loader.images[1])
    before = weight_of(trainer).detach().clone()
    first, second = train_epoch(trainer, loader)
    assert (first.is_skipped, second.is_skipped) == (True, False)
    assert not torch.equal(weight_of(trainer), before)
    assert torch.isfinite(weight_of(trainer)).all()


FAMILIES = {
    "vit_tiny_patch16_224": ("--img-size", 32),
    "mobilenetv3_small_050": ("--img-size", 32, "--clip-grad", 0.01, "--clip-mode", "agc"),
    "convnext_atto": ("--img-size", 32, "--opt", "adamw", "--lr", 1e-3, "--model-ema"),
    "nf_resnet26": ("--img-size", 32, "--amp"),
    "seresnet18": ("--img-size", 32, "--amp-dtype", "float16"),
    "resnet18_wobn": ("--img-size", 32, "--cutmix", 1.0, "--mixup-mode", "elem"),
    "resnet20": ("--img-size", 32, "--aug-splits", 2, "--split-bn", "--aa", "rand-m5"),
}


@pytest.mark.parametrize("model", FAMILIES)
def test_every_kind_of_model_trains_with_tampering(
    model: str,
    tmp_path: Path,
    make_images,
) -> None:
    data = make_images(tmp_path / "photos", {"ant": 4, "bee": 4})
    words = ("--data_dir", data, "--model", model, "-b", 4, "-j", 0, "--epochs", 1)
    result = train(*words, *FAMILIES[model], "--modify-softmax", 0.5, "--smoothing", 0.1)
    assert result.status == "finished"
    assert result.rows[0]["train_loss"] > 0  # type: ignore[operator]


def test_a_compiled_model_trains_as_the_eager_one() -> None:
    words = ("--model", "digits_mlp", "--epochs", 1, "--modify-softmax", 0.25, "--output", "out")
    eager = train(*words, "--experiment", "eager")
    compiled = train(*words, "--experiment", "compiled", "--torchcompile")
    assert compiled.rows[0]["eval_loss"] == pytest.approx(eager.rows[0]["eval_loss"], rel=1e-3)


def test_the_same_seed_pairs_the_arms() -> None:
    """The first batch's loss, before any update, does not depend on alpha; the seed matters."""
    words = ("--epochs", 1, "--max-steps", 1, "-b", 2000, "--no-channels-last", "--output", "out")
    losses = {}
    for seed, alpha in ((1, 0), (1, 0.25), (1, 0.5), (2, 0)):
        name = f"{seed}-{alpha}"
        train(*words, "--seed", seed, "--modify-softmax", alpha, "--experiment", name)
        (path,) = Path("out", name).glob("recovery-*")
        ours = torch.load(path, weights_only=True)["softmax_gradient_tampering"]
        (losses[seed, alpha],) = ours["tallies"]
    assert losses[1, 0.5] == losses[1, 0.25] != losses[2, 0]
    # Without tampering torch's own kernel computes the loss, and rounds otherwise.
    assert losses[1, 0] == pytest.approx(losses[1, 0.25], rel=1e-6)
