"""Evaluation: every sample once, whatever the batches and the processes."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from softmax_gradient_tampering.data.loader import Batch
from softmax_gradient_tampering.training.measure.calibration import Calibration
from softmax_gradient_tampering.training.measure.evaluation import evaluate
from softmax_gradient_tampering.training.processes.distributed import Processes
from softmax_gradient_tampering.training.step.precision import Precision
from tests.training.runs import program

CPU = torch.device("cpu")
ALONE = Processes(1, 0, CPU)


class LogitsLoader:
    """Hands the logits themselves out as images, in batches of a size."""

    def __init__(self, logits: torch.Tensor, labels: torch.Tensor, batch_size: int) -> None:
        self.pairs = list(zip(logits.split(batch_size), labels.split(batch_size), strict=True))
        self.batch_sizes = [len(labels) for _, labels in self.pairs]
        self.num_samples = len(labels)

    def __len__(self) -> int:
        return len(self.pairs)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for logits, labels in self.pairs[start:]:
            yield Batch(logits, labels, labels)

    def close(self) -> None:
        """There are no workers."""


@pytest.fixture
def samples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(101, 7, generator=generator)
    return logits, torch.randint(7, (101,), generator=generator)


@pytest.mark.parametrize("batch_size", [1, 10, 101])
def test_the_batches_do_not_matter(
    samples: tuple[torch.Tensor, torch.Tensor], batch_size: int
) -> None:
    logits, labels = samples
    loader = LogitsLoader(logits, labels, batch_size)
    found = evaluate(nn.Identity(), loader, ALONE, Precision(CPU, None))
    assert found.num_samples == 101
    assert found.num_correct == (logits.argmax(1) == labels).sum()
    top5 = (logits.topk(5).indices == labels[:, None]).any(1).float().mean()
    assert found.top5 == pytest.approx(100 * top5.item())
    assert found.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)
    assert found.logits[0] == pytest.approx(logits.norm(dim=1).mean().item(), rel=1e-6)


def test_fewer_than_five_classes_rank_all() -> None:
    logits, labels = torch.eye(3), torch.tensor([0, 2, 1])
    found = evaluate(nn.Identity(), LogitsLoader(logits, labels, 2), ALONE, Precision(CPU, None))
    assert (found.num_correct, found.top5) == (1, 100.0)


def test_of_equal_logits_the_first_is_the_prediction() -> None:
    """As in predictions.npz, of whose accuracy a study makes sure."""
    logits, labels = torch.zeros(40, 10), torch.arange(40) % 10
    found = evaluate(nn.Identity(), LogitsLoader(logits, labels, 7), ALONE, Precision(CPU, None))
    assert found.num_correct == 4
    assert 4 <= found.top5 * 40 / 100 <= 24


def test_a_sample_too_few_is_noticed(samples: tuple[torch.Tensor, torch.Tensor]) -> None:
    loader = LogitsLoader(*samples, 10)
    loader.num_samples = 102
    with pytest.raises(AssertionError, match="101 of 102"):
        evaluate(nn.Identity(), loader, ALONE, Precision(CPU, None))


def test_calibration_of_known_predictions() -> None:
    """Four predictions of 0.8 of which three are right: ECE 5 %."""
    logits = torch.log(torch.tensor([[0.8, 0.2]] * 4))
    labels = torch.tensor([0, 0, 0, 1])
    calibration = Calibration(1.0, CPU)
    calibration.add(logits, labels)
    found = calibration.result(ALONE)
    assert found["ece"] == pytest.approx(5.0, rel=1e-6)
    log = torch.log(torch.tensor([0.8, 0.2], dtype=torch.float64))
    assert found["nll"] == pytest.approx(-(3 * log[0] + log[1]).item() / 4, rel=1e-6)
    assert found["brier"] == pytest.approx((3 * 2 * 0.2**2 + 2 * 0.8**2) / 4, rel=1e-6)


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_calibration_is_that_of_its_definition(
    samples: tuple[torch.Tensor, torch.Tensor], scale: float
) -> None:
    logits, labels = samples
    calibration = Calibration(scale, CPU)
    for part in torch.arange(101).split(20):
        calibration.add(logits[part], labels[part])
    found = calibration.result(ALONE)
    p = torch.softmax(scale * logits.double(), 1)
    confidence, predicted = p.max(1)
    ece = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            gap = confidence[inside].mean() - (predicted == labels)[inside].double().mean()
            ece += inside.double().mean().item() * abs(gap.item())
    assert found["ece"] == pytest.approx(100 * ece, rel=1e-9)
    brier = ((p - F.one_hot(labels, 7)) ** 2).sum(1).mean()
    assert found["brier"] == pytest.approx(brier.item(), rel=1e-9)


def test_one_two_and_three_processes_count_alike() -> None:
    """450 test images; 3 processes of batches of 7 see 150 each, the last batch a part."""
    words = ("--validate", "-b", 7, "--seed", 3, "--logit-stats")
    outputs = {number: program(*words, processes=number) for number in (1, 2, 3)}
    counts = set()
    for done in outputs.values():
        assert done.returncode == 0, done.stderr
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("Val Acc:")]
        counts.add(line)
    assert len(counts) == 1
