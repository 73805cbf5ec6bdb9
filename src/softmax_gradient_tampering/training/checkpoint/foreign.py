"""Checkpoints of other programs, brought to the form of timm's: weights under `state_dict`."""

from typing import Any

from torch import Tensor

from softmax_gradient_tampering.errors import as_printable

# Where DeiT, torchvision's references and others keep the weights, and the averaged ones.
_WEIGHTS = ("model", "model_state_dict", "model_state", "net", "weights")
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
_NOT_OF_THE_MODEL = ("n_averaged",)  # torch's AveragedModel counts in it
_NUM_NAMED = 6


def as_timms(content: dict[Any, Any]) -> dict[str, Any]:
    """The checkpoint with its weights under `state_dict`, averaged ones under `state_dict_ema`.

    One that has a `state_dict` keeps all else that is in it; of others nothing else is taken
    but the name of the model, where it is said.

    Raises:
        ValueError: there are no weights in it; the message says what is.
    """
    averaged = next((content[name] for name in _AVERAGED if _is_weights(content.get(name))), None)
    if "state_dict" in content:
        taken = dict(content)
    elif _is_weights(content):
        return {"state_dict": _of_the_model(content)}
    else:
        name = next((name for name in _WEIGHTS if _is_weights(content.get(name))), None)
        if name is None and averaged is None:
            raise ValueError(f"it holds {_named(content)}, and weights under no name that is known")
        taken = {"state_dict": content[name] if name else averaged}
        arch = getattr(content.get("args"), "model", content.get("arch"))
        if isinstance(arch, str):
            taken["arch"] = arch
    if averaged is not None:
        taken["state_dict_ema"] = _of_the_model(averaged)
    return taken


def _is_weights(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) for name in value)
        and all(isinstance(tensor, Tensor) for tensor in value.values())
    )


def _of_the_model(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: weights[name] for name in weights if name not in _NOT_OF_THE_MODEL}


def _named(content: dict[Any, Any]) -> str:
    names = ", ".join(as_printable(f"{name!s:.40}") for name in list(content)[:_NUM_NAMED])
    return (names or "nothing") + ", ..." * (len(content) > _NUM_NAMED)
