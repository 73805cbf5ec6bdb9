"""The losses of other packages, where they are installed: the `bench` extra.

Both are written in Triton, for GPUs. Each is called as its own documentation has it.
"""

import importlib.metadata
import importlib.util
from collections.abc import Callable

from torch import Tensor

Loss = Callable[..., Tensor]


def logits_losses() -> dict[str, Loss]:
    """Cross-entropies of (logits, target), by name and version."""
    if not _is_installed("liger_kernel"):
        return {}
    from liger_kernel.transformers.functional import liger_cross_entropy

    return {_named("liger-kernel"): liger_cross_entropy}


def linear_losses() -> dict[str, Loss]:
    """Cross-entropies of (hidden, weight, target), by name and version."""
    losses: dict[str, Loss] = {}
    if _is_installed("liger_kernel"):
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

        losses[_named("liger-kernel")] = liger_fused_linear_cross_entropy
    if _is_installed("cut_cross_entropy"):
        from cut_cross_entropy import linear_cross_entropy

        # Without the filter that leaves out small gradients: what its authors call exact.
        losses[_named("cut-cross-entropy")] = lambda hidden, weight, target: linear_cross_entropy(
            hidden, weight, target, filter_eps=None
        )
    return losses


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _named(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"
