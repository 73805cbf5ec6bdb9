"""The tampered cross-entropy as Hugging Face's Trainer calls a loss."""

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from softmax_gradient_tampering.loss.alpha import Alpha, keep_alpha
from softmax_gradient_tampering.loss.functional import tampered_cross_entropy
from softmax_gradient_tampering.loss.inference.scaled_logits import get_logits
from softmax_gradient_tampering.loss.torch_internals import is_eager, is_transformed

_IGNORE_INDEX = -100  # what the Trainer leaves out when it counts labels
_SUM_TOLERANCE = 0.01  # of probabilities that were rounded to half precision
_UNSHIFTED = ("TokenClassifier", "MaskedLM", "Seq2SeqLM")


class TamperedTrainerLoss:
    """The `compute_loss_func` of transformers' Trainer, with a tampered gradient.

    `Trainer(model, args, compute_loss_func=TamperedTrainerLoss(0.5), ...)`. As the Trainer's own
    losses, it is the sum over the labels of a batch, divided by how many labels the accumulated
    batch has, so that accumulation changes nothing. Half-precision logits give a float32 loss
    without a float32 copy of them. Its value, in training and in evaluation, is that of
    `F.cross_entropy`.

    It takes the logits that the model returns, of whatever kind: (N, classes) of a classifier,
    (N, tokens, classes) of a language model or a token classifier, (N, classes, height, width)
    of a segmentation at the labels' resolution. A label of -100 does not count.

    The Trainer gives a loss of one's own no class weights and no smoothing:
    `TrainingArguments(label_smoothing_factor=...)` has no effect then, `label_smoothing` here has.

    Args:
        alpha: as in `tampered_cross_entropy`; the attribute `alpha` may be set anew at any time,
            by a TrainerCallback for instance.
        shift_labels: for logits of tokens: True where the label of a position is the next token
            of the text (`labels` are `input_ids`), False where it is the position's own. Needed
            where the kind of the output does not say it, as that of a causal language model.
        label_smoothing: in [0, 1].

    Raises:
        ValueError: alpha is negative or not finite. In a call: the Trainer gives no labels, the
            model returns no logits, the two do not fit, a row of probabilities does not sum to 1
            (as where it may have many labels), or it is not known whether to shift.

    >>> loss_fn = TamperedTrainerLoss(0.5)
    >>> logits, labels = torch.zeros(2, 5), torch.tensor([0, 4])
    >>> loss_fn((logits,), labels, num_items_in_batch=4)  # two of four labels: half the mean
    tensor(0.8047)

    Source: arXiv 2111.12495, section 3.
    """

    def __init__(
        self, alpha: Alpha, *, shift_labels: bool | None = None, label_smoothing: float = 0.0
    ) -> None:
        self.alpha = keep_alpha(alpha)
        self.shift_labels = shift_labels
        self.label_smoothing = label_smoothing

    def __call__(
        self, outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | float | None = None
    ) -> Tensor:
        """The loss of a batch.

        Args:
            outputs: what the model returns.
            labels: class indices, or, of the logits' shape, class probabilities.
            num_items_in_batch: how many labels the accumulated batch has, of probabilities how
                many numbers, as the Trainer counts them; None for the mean over this batch.
        """
        if not isinstance(labels, Tensor):
            raise ValueError(
                f"the Trainer gives {type(labels).__name__} where the labels should be: the data "
                'set needs a column "labels", and TrainingArguments label_names=["labels"] where '
                "the model takes no labels itself"
            )
        logits = get_logits(outputs)
        labels = labels.to(logits.device)
        if logits.dim() == 3 and labels.shape == logits.shape[:2] and self._is_shifted(outputs):
            # The last position has nothing to predict. The logits stay as they are, uncopied.
            labels = F.pad(labels, (0, 1), value=_IGNORE_INDEX)[:, 1:]
        logits, labels = _to_rows(logits, labels)
        if num_items_in_batch is not None and labels.is_floating_point():
            # The Trainer counts every number in the labels, here one for each class of a row.
            num_items_in_batch = num_items_in_batch / labels.shape[-1]
        is_half = logits.dtype in (torch.float16, torch.bfloat16)
        # Under autocast the loss of half-precision logits is float32.
        with torch.autocast(logits.device.type, logits.dtype) if is_half else nullcontext():
            loss = tampered_cross_entropy(
                logits,
                labels,
                self.alpha,
                ignore_index=_IGNORE_INDEX,
                reduction="mean" if num_items_in_batch is None else "sum",
                label_smoothing=self.label_smoothing,
            )
        if num_items_in_batch is None:
            return loss
        if isinstance(num_items_in_batch, Tensor):
            num_items_in_batch = num_items_in_batch.to(loss.device)
        return loss / (num_items_in_batch + (num_items_in_batch == 0))  # no label: 0, not nan

    def _is_shifted(self, outputs: Any) -> bool:
        kind = type(outputs).__name__
        if self.shift_labels is None and not any(name in kind for name in _UNSHIFTED):
            raise ValueError(
                f"whether the labels are to be shifted is not known from a {kind}: pass "
                "TamperedTrainerLoss(alpha, shift_labels=True) for a causal language model, whose "
                "labels are its input_ids, or shift_labels=False for labels in their own place"
            )
        return bool(self.shift_labels)


def _check_probabilities(labels: Tensor) -> None:
    """Refuse the labels of many classes at once, which transformers' own loss takes in this form.

    They are read for it, which on a device waits for them.

    Raises:
        ValueError: a row does not sum to 1.
    """
    if not is_eager(labels) or is_transformed():
        return
    if (labels.sum(-1, dtype=torch.float32) - 1).abs().gt(_SUM_TOLERANCE).any():
        raise ValueError(
            "labels that are no integers are class probabilities to TamperedTrainerLoss, and here "
            "a row of them does not sum to 1. Where a row may have many classes, or none, pass as "
            "compute_loss_func a function that returns tampered_binary_cross_entropy_with_logits("
            'outputs.logits, labels, alpha, reduction="sum") / num_items_in_batch'
        )


def _to_rows(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, classes, ...) and their labels, of logits whose classes are last or second.

    Raises:
        ValueError: the labels fit neither.
    """
    if labels.is_floating_point():
        if labels.shape == logits.shape and logits.dim() in (2, 3):
            _check_probabilities(labels)
            return logits.flatten(0, -2), labels.flatten(0, -2)
    elif logits.dim() > 3 and labels.shape == logits.shape[:1] + logits.shape[2:]:
        return logits, labels  # of images, also where height and width are the number of classes
    elif labels.shape == logits.shape[:-1]:
        return logits.flatten(0, -2), labels.flatten()
    elif logits.dim() > 2 and labels.shape == logits.shape[:1] + logits.shape[2:]:
        return logits, labels
    raise ValueError(
        f"labels of shape {tuple(labels.shape)} ({labels.dtype}) do not fit logits of shape "
        f"{tuple(logits.shape)}: give a class index for each row or token, class probabilities "
        "of the logits' shape, or, in a segmentation, logits that are interpolated to the labels"
    )
