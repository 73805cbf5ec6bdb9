"""What a run is to do: the dataclass, its command line, its YAML, and what may not be asked for.

Imports `files` and `terminal`, and nothing heavy: `--help` is made from it.
"""

from softmax_gradient_tampering.training.config.fields import Config

__all__ = ["Config"]
