"""Training: one configuration in, one run folder out."""

from softmax_gradient_tampering.training.config import Config
from softmax_gradient_tampering.training.run import Result, run

__all__ = ["Config", "Result", "run"]
