"""From the name of a model to the model: a name of timm's, or a place that holds one."""

import difflib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from timm.models import get_pretrained_cfg, resolve_model_input_args
from torch import nn

from softmax_gradient_tampering.errors import UserError, first_line
from softmax_gradient_tampering.models.published import PUBLISHED_MODELS


@dataclass(frozen=True)
class NamedModel:
    """What a name stands for.

    Attributes:
        name: as it was given.
        architecture: timm's name of the architecture, without a tag.
        has_fixed_size: whether the size of its images is settled when it is created.
        arguments: for timm.create_model.
    """

    name: str
    architecture: str
    has_fixed_size: bool
    arguments: dict[str, Any]


def find_model(name: str) -> NamedModel:
    """Find a model by timm's name of it, or by `hf-hub:OWNER/NAME` or `local-dir:FOLDER`.

    The places hold a config.json; that of a hub is fetched, or is in the local cache.

    Raises:
        UserError: there is no such model.
    """
    if ":" in name or "/" in name:
        return _find_placed(name)
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() lists all"
        raise UserError(f"--model {name}: timm has no such model; {hint}")
    try:
        cfg = get_pretrained_cfg(name, allow_unregistered=True)
    except RuntimeError as error:  # a tag, as in resnet18.TAG, that there is not
        raise UserError(f"--model {name}: {first_line(error)}") from error
    has_fixed_size = cfg is not None and bool(cfg.fixed_input_size)
    return NamedModel(name, name.split(".")[0], has_fixed_size, {"model_name": name})


def _find_placed(name: str) -> NamedModel:
    place, _, where = name.partition(":")
    given = f"{place}:{Path(where).expanduser()}" if where.startswith("~") else name
    try:
        arguments = resolve_model_input_args(given)
    except ValueError as error:  # in the words of timm, which name the right form
        raise UserError(f"--model {name}: {first_line(error)}") from error
    except Exception as error:  # of the network, of files, of what is in them
        hint = "; without a network it must be in the local cache" * place.startswith("hf")
        raise UserError(f"--model {name}: not found ({first_line(error)}){hint}") from error
    has_fixed_size = bool(arguments["pretrained_cfg"].get("fixed_input_size"))
    return NamedModel(name, arguments["model_name"], has_fixed_size, arguments)


def create_model(model: str | NamedModel, zero_init_last: bool = False, **kwargs: Any) -> nn.Module:
    """Create a model; the published seven with their published initialisation.

    The published code never zero-initialises the last normalisation of a residual block
    (its guard is always false), timm does; `zero_init_last` gives timm's.

    Args:
        model: what `find_model` found, or the name.
        zero_init_last: for the published models, timm's initialisation instead.
        **kwargs: passed to timm.create_model; None values are left out.

    Raises:
        UserError: there is no such model, or the model does not take an option.
    """
    found = find_model(model) if isinstance(model, str) else model
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    if found.architecture in PUBLISHED_MODELS:
        kwargs["zero_init_last"] = zero_init_last
    if ":" in found.name and not kwargs.get("pretrained"):
        warnings.warn(
            f"--model {found.name} without --pretrained: the weights there are not loaded, the "
            "model starts anew",
            stacklevel=2,
        )
    try:
        created: nn.Module = timm.create_model(**{**found.arguments, **kwargs})
    except TypeError as error:
        # A model's constructor names the argument that it does not take.
        reason = first_line(error).split("() ")[-1]
        raise UserError(f"--model {found.name} does not take an option given: {reason}") from error
    except Exception as error:
        # Weights that cannot be fetched, options that a model checks late: anything.
        source = "; without a network --pretrained does not work" * bool(kwargs.get("pretrained"))
        raise UserError(
            f"--model {found.name}: cannot be made ({first_line(error)}){source}"
        ) from error
    return created
