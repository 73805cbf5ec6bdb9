"""The flags about the optimizer."""

from dataclasses import dataclass

from softmax_gradient_tampering.training.config.flag import Floats, flag


@dataclass(frozen=True, kw_only=True)
class OptimizerFlags:
    """The flags about the optimizer."""

    opt: str = flag(
        "sgd",
        "an optimizer by timm's name; sgd has Nesterov's momentum, momentum the ordinary one",
        unit="NAME",
    )
    opt_eps: float | None = flag(
        None,
        "what adaptive optimizers add to the denominator",
        unit="X",
        unset="the optimizer's",
    )
    opt_betas: Floats | None = flag(
        None, "decay rates of adaptive optimizers' averages", unit="X ...", unset="the optimizer's"
    )
    momentum: float = flag(
        0.9, "momentum: share of the last step that the next one keeps", unit="SHARE"
    )
    weight_decay: float = flag(1e-4, "weight decay; biases and normalisation have none", unit="X")
    clip_grad: float | None = flag(
        None, "clip the gradient at this value; --clip-mode says of what", unit="X", unset="off"
    )
    clip_mode: str = flag(
        "norm",
        "what is clipped: norm, the norm of all gradients; value, each number; agc, the norm of "
        "each unit's gradient as a factor of its weights' norm",
        unit="NAME",
        choices=("norm", "value", "agc"),
    )
    grad_accum_steps: int = flag(
        1, "batches whose gradients make an optimizer step", unit="BATCHES"
    )
