"""The loss room: the method, for any loop that has logits.

`functional` and `module` are the cross-entropy, `trainer_loss` is it for transformers' Trainer,
`generic` tampers with any loss, `linear` spares the logits of large vocabularies, `inference`
multiplies a trained model's logits by alpha, and `equivalence` is the ordinary training that a
tampered one equals.
`operator` meets autograd and, through `dispatcher`, whoever traces; `kernels` compute.
`torch_internals` asks torch what it has no public name for. The room imports torch and nothing
else.
"""

from softmax_gradient_tampering.loss.equivalence import equivalent_parameter_groups
from softmax_gradient_tampering.loss.functional import tampered_cross_entropy
from softmax_gradient_tampering.loss.generic import (
    tamper,
    tampered_binary_cross_entropy_with_logits,
)
from softmax_gradient_tampering.loss.inference.folding import fold_alpha
from softmax_gradient_tampering.loss.inference.scaled_logits import ScaledLogits
from softmax_gradient_tampering.loss.linear.functional import tampered_linear_cross_entropy
from softmax_gradient_tampering.loss.module import TamperedCrossEntropyLoss
from softmax_gradient_tampering.loss.probability import power_transform, stationary_threshold
from softmax_gradient_tampering.loss.statistics import LogitStatistics, logit_statistics
from softmax_gradient_tampering.loss.trainer_loss import TamperedTrainerLoss

__all__ = [
    "LogitStatistics",
    "ScaledLogits",
    "TamperedCrossEntropyLoss",
    "TamperedTrainerLoss",
    "equivalent_parameter_groups",
    "fold_alpha",
    "logit_statistics",
    "power_transform",
    "stationary_threshold",
    "tamper",
    "tampered_binary_cross_entropy_with_logits",
    "tampered_cross_entropy",
    "tampered_linear_cross_entropy",
]
