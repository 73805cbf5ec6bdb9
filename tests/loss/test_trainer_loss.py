"""The loss as transformers' Trainer calls it, with made outputs in the place of a model's."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from softmax_gradient_tampering import TamperedTrainerLoss, tampered_cross_entropy
from tests.loss.inference.models import LanguageModelOutput

ALPHA = 0.25


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


class CausalLMOutput(LanguageModelOutput):
    """As transformers' output of the name."""


class TokenClassifierOutput(LanguageModelOutput):
    """As transformers' output of the name."""


def gradient(loss: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss, z)[0]


def some_logits(*shape: int, **options: Any) -> torch.Tensor:
    return (3 * torch.randn(*shape)).to(**options).requires_grad_()


def test_without_a_count_it_is_the_mean_and_with_one_its_part_of_the_whole():
    z, y = some_logits(6, 4), torch.randint(4, (6,))
    loss_fn = TamperedTrainerLoss(ALPHA, label_smoothing=0.1)
    mean = tampered_cross_entropy(z, y, ALPHA, label_smoothing=0.1)
    for loss in (loss_fn((z,), y), loss_fn({"logits": z}, y, 6), loss_fn(z, y, torch.tensor(6))):
        assert torch.allclose(loss, mean)
        assert torch.allclose(gradient(loss, z), gradient(mean, z))
        mean = tampered_cross_entropy(z, y, ALPHA, label_smoothing=0.1)
    parts = loss_fn(z[:2], y[:2], 6) + loss_fn(z[2:], y[2:], num_items_in_batch=6)
    assert torch.allclose(parts, mean)


def test_shifted_labels_are_those_of_the_next_token():
    z, words = some_logits(2, 5, 7), torch.randint(7, (2, 5))
    words[1, 3:] = -100
    loss = TamperedTrainerLoss(ALPHA, shift_labels=True)(CausalLMOutput(logits=z), words)
    expected = tampered_cross_entropy(z[:, :-1].flatten(0, 1), words[:, 1:].flatten(), ALPHA)
    assert torch.allclose(loss, expected)
    assert torch.allclose(gradient(loss, z), gradient(expected, z))
    own = tampered_cross_entropy(z.flatten(0, 1), words.flatten(), ALPHA)
    unshifted = TamperedTrainerLoss(ALPHA, shift_labels=False)
    assert torch.allclose(unshifted(CausalLMOutput(logits=z), words), own)
    # Of a token classifier it is known.
    assert torch.allclose(TamperedTrainerLoss(ALPHA)(TokenClassifierOutput(logits=z), words), own)


def test_labels_of_pixels_and_class_probabilities():
    z, y = some_logits(2, 3, 4, 5), torch.randint(3, (2, 4, 5))
    loss_fn = TamperedTrainerLoss(ALPHA)
    expected = tampered_cross_entropy(z, y, ALPHA)
    assert torch.allclose(loss_fn(SimpleNamespace(logits=z), y, 40), expected)
    z, y = some_logits(2, 3, 3, 3), torch.randint(3, (2, 3, 3))  # which dimension is not seen
    assert torch.allclose(loss_fn((z,), y), tampered_cross_entropy(z, y, ALPHA))
    for shape in ((6, 4), (2, 3, 4)):
        z, soft = some_logits(*shape), torch.rand(*shape).softmax(-1)
        expected = tampered_cross_entropy(z.flatten(0, -2), soft.flatten(0, -2), ALPHA)
        assert torch.allclose(loss_fn((z,), soft), expected)


@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 4)], ids=str)
def test_probabilities_are_counted_by_rows_as_the_trainer_counts_their_numbers(shape):
    z, soft = some_logits(*shape), torch.rand(*shape).softmax(-1)
    expected = tampered_cross_entropy(z.flatten(0, -2), soft.flatten(0, -2), ALPHA)
    for count in (soft.numel(), soft.ne(-100).sum()):
        loss = TamperedTrainerLoss(ALPHA)((z,), soft, num_items_in_batch=count)
        assert torch.allclose(loss, expected)
        assert torch.allclose(gradient(loss, z), gradient(expected, z))
        expected = tampered_cross_entropy(z.flatten(0, -2), soft.flatten(0, -2), ALPHA)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_labels_of_many_classes_at_once_are_refused_with_the_loss_for_them(dtype):
    z, loss_fn = some_logits(4, 100, dtype=dtype), TamperedTrainerLoss(ALPHA)
    loss_fn((z,), torch.full((4, 100), 0.01, dtype=dtype))
    loss_fn((z,), torch.eye(4, 100, dtype=dtype))
    for row in (torch.zeros(100), torch.ones(100), torch.arange(100) < 2):
        labels = torch.eye(4, 100, dtype=dtype)
        labels[2] = row
        for count in (None, 400):
            with pytest.raises(ValueError, match=r"does not sum to 1.*binary_cross_entropy_with"):
                loss_fn((z,), labels, count)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_half_precision_have_a_float32_loss_and_the_right_gradient(dtype):
    z, y = some_logits(1000, 8, dtype=dtype), torch.randint(8, (1000,))
    loss = TamperedTrainerLoss(ALPHA)((z,), y, num_items_in_batch=1000)
    assert loss.dtype == torch.float32
    assert torch.allclose(loss, F.cross_entropy(z.float(), y), rtol=1e-5)
    grad = gradient(loss, z)
    assert grad.dtype == dtype
    wide = z.detach().float().requires_grad_()
    expected = gradient(tampered_cross_entropy(wide, y, ALPHA), wide)
    # The rounding of one number; float16 holds these small ones to its smallest step alone.
    eps = torch.finfo(dtype).eps
    step = torch.finfo(dtype).smallest_normal * eps
    assert torch.allclose(grad.float(), expected, rtol=eps, atol=step)


def test_a_batch_without_a_label_has_the_loss_0_and_the_gradient_0():
    z, y = some_logits(3, 4), torch.full((3,), -100)
    for count in (0, torch.tensor(0)):
        loss = TamperedTrainerLoss(ALPHA)((z,), y, num_items_in_batch=count)
        assert loss.item() == 0
        assert not gradient(loss, z).any()


def test_alpha_may_be_set_anew():
    z, y = some_logits(3, 4), torch.tensor([0, 1, 2])
    loss_fn = TamperedTrainerLoss(1.0)
    loss_fn.alpha = ALPHA
    expected = gradient(tampered_cross_entropy(z, y, ALPHA), z)
    assert torch.equal(gradient(loss_fn((z,), y), z), expected)


def test_bad_input_is_one_sentence_with_the_fix():
    loss_fn = TamperedTrainerLoss(ALPHA)
    z, y = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    with pytest.raises(ValueError, match="alpha must be finite and at least 0"):
        TamperedTrainerLoss(-1)
    with pytest.raises(ValueError, match="NoneType where the labels should be: the data set needs"):
        loss_fn((z,), None)
    with pytest.raises(ValueError, match="where its logits should be: return a tensor"):
        loss_fn({"last_hidden_state": z}, y)
    for outputs in ((z,), CausalLMOutput(logits=z)):
        with pytest.raises(ValueError, match=r"pass TamperedTrainerLoss.* shift_labels=True"):
            loss_fn(outputs, y)
    for wrong in (y[:, :4], torch.randint(7, (2,)), torch.rand(2, 7), torch.rand(2, 5, 6)):
        with pytest.raises(ValueError, match=r"do not fit logits of shape \(2, 5, 7\): give"):
            loss_fn((z,), wrong)
    with pytest.raises(ValueError, match="interpolated to the labels"):
        loss_fn((torch.randn(2, 3, 4, 4),), torch.randint(3, (2, 8, 8)))
