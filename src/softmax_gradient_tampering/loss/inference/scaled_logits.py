"""A model whose logits are multiplied by alpha, for where its weights cannot be."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from softmax_gradient_tampering.loss.alpha import check_alpha


class ScaledLogits(nn.Module):
    """A model with its logits times alpha: what `fold_alpha` does, without touching a weight.

    For classifiers that cannot be folded: the weight is shared with an embedding (GPT-2, BERT,
    a tied Llama), made anew at every call (weight or spectral normalisation, adapters), or
    followed by something that is not linear. Softmax of the result is softmax(alpha z).

    The model's output may be a tensor; a tuple or list, whose first item is the logits; a
    mapping with a key "logits"; or an object with an attribute `logits`. All else in it stays
    as it is, a `loss` too, and the model's own object is not written to.

    It is meant for inference: train the model inside, whose logits are z. Its state_dict is
    the model's, with names that begin with "model."; alpha is not in it, as it is an argument.

    Args:
        model: gives the logits z; kept as `model`, neither copied nor changed.
        alpha: the exponent of the training, > 0; kept as `alpha` and as `folded_alpha`, by which
            `fold_alpha` refuses to apply it a second time.

    Raises:
        ValueError: alpha is not above 0, or is in the model's logits already.

    >>> import torch
    >>> model = nn.Linear(2, 3)
    >>> x = torch.ones(1, 2)
    >>> torch.equal(ScaledLogits(model, 0.25)(x), 0.25 * model(x))
    True

    Source: follows from arXiv 2111.12495, as training minimises cross_entropy(alpha z).
    """

    def __init__(self, model: nn.Module, alpha: float) -> None:
        super().__init__()
        self.alpha = self.folded_alpha = check_scale(alpha)
        check_not_folded(model)
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output, its logits times alpha."""
        output = self.model(*args, **kwargs)
        return replace_logits(output, self.alpha * get_logits(output))

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


def check_scale(
    alpha: float,
    at_zero: str = "alpha = 0 cannot be folded: every logit would be 0; fit a temperature",
) -> float:
    """alpha as a number above 0; `at_zero` is the message that refuses 0.

    Raises:
        ValueError: it is 0, negative, not finite, or cannot be read.
    """
    factor = check_alpha(alpha.detach() if isinstance(alpha, Tensor) else alpha)
    if isinstance(factor, Tensor):  # on a device: here it is read
        factor = check_alpha(factor.item())
    assert isinstance(factor, float)
    if factor == 0:
        raise ValueError(at_zero)
    return factor


def check_not_folded(*modules: nn.Module) -> None:
    """Refuse modules that hold an alpha in their logits, by the mark that says so.

    Raises:
        ValueError: one does.
    """
    for root in modules:
        for module in root.modules():
            folded = getattr(module, "folded_alpha", None)
            if folded is not None:
                raise ValueError(
                    f"alpha = {folded} is already folded into this classifier; load the unfolded "
                    "weights into a new model for another alpha"
                )
            equivalent = getattr(module, "equivalent_alpha", None)
            if equivalent is not None:
                raise ValueError(
                    f"equivalent_parameter_groups has multiplied the initial weights of this "
                    f"classifier by alpha = {equivalent}, so that its logits are alpha z already; "
                    "use it as it is, or make a new model for another alpha"
                )


def get_logits(output: Any) -> Tensor:
    """The logits in a model's output: itself, its first item, or what it calls `logits`.

    Raises:
        ValueError: it has none.
    """
    found = output
    if hasattr(output, "logits"):
        found = output.logits
    elif isinstance(output, Mapping):
        found = output.get("logits")
    elif isinstance(output, (tuple, list)):
        found = output[0] if output else None
    if not isinstance(found, Tensor) or found.dim() == 0:
        kind = "a loss" if isinstance(found, Tensor) else f"a {type(output).__name__}"
        raise ValueError(
            f"the model returns {kind} where its logits should be: return a tensor, a tuple "
            "that begins with the logits, or an object that has `logits`"
        )
    return found


def replace_logits(output: Any, logits: Tensor) -> Any:
    """The output with other logits, in a copy of its own kind."""
    if isinstance(output, Tensor):
        return logits
    if isinstance(output, tuple) and (fields := getattr(type(output), "_fields", ())):  # named
        name = "logits" if "logits" in fields else fields[0]
        return output._replace(**{name: logits})  # type: ignore[attr-defined]
    if isinstance(output, (tuple, list)) and not hasattr(output, "logits"):
        return type(output)([logits, *output[1:]])
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return dataclasses.replace(output, logits=logits)
    replaced = copy.copy(output)
    if hasattr(output, "logits"):
        replaced.logits = logits
    else:
        replaced["logits"] = logits
    return replaced
