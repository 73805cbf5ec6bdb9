"""`sgt validate`: evaluate a checkpoint; the same program as `sgt train --validate`."""

from collections.abc import Sequence

from softmax_gradient_tampering.commands import train


def main(argv: Sequence[str]) -> int:
    """Evaluate, and write nothing; returns the exit code."""
    return train.main([*argv, "--validate"], program="sgt validate")
