"""How the operators meet torch's dispatcher, and what those of a loss have in common.

An operator is called where somebody traces or intercepts: torch.compile, torch.export, make_fx,
fake tensors, dispatch modes. Its derivative is registered with the dispatcher, so that a graph
that holds the operator is differentiated as the eager call is. An eager call does without the
dispatcher, which saves its time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import has_static_value

from softmax_gradient_tampering.loss.alpha import Alpha, check_alpha
from softmax_gradient_tampering.loss.kernels.options import Options
from softmax_gradient_tampering.loss.torch_internals import below_autograd, is_eager

Implementation = Callable[..., Any]
_NAMESPACE = "softmax_gradient_tampering"
_library = torch.library.Library(_NAMESPACE, "DEF")
# A loss's last arguments. alpha travels as a number, or as `alpha_tensor` where it may not be
# read. An argument of the name `kernel` would clash with one of torch's own when it compiles.
_ALPHA = "float alpha, Tensor? alpha_tensor"
_OPTIONS = (
    "Tensor? class_weight, int ignore_index, str reduction, float label_smoothing, "
    "ScalarType loss_dtype"
)
_KERNEL = ", str kernel_name='auto'"


def define_operator(
    name: str,
    schema: str,
    run: Implementation,
    fake: Implementation,
    differentiate: Implementation,
) -> Callable[..., Any]:
    """Define an operator of this package, and return what calls it.

    Args:
        name: without the namespace.
        schema: its arguments and results, as torch's dispatcher writes them.
        run: computes it, on every device.
        fake: the same without data: shapes, dtypes and layouts.
        differentiate: the same where autograd records; where somebody traces, it calls the
            operator once more, below autograd.
    """
    _library.define(name + schema)
    _library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{_NAMESPACE}::{name}", fake, lib=_library)
    for key in ("Autograd", "FuncTorchDynamicLayerFrontMode"):  # the latter: torch.func
        _library.impl(name, differentiate, key)
    overload: Callable[..., Any] = getattr(torch.ops.softmax_gradient_tampering, name).default
    return overload


class Implementations(NamedTuple):
    """What `define_operator` takes, of an operator's own arguments, target, alpha and options.

    `check` raises ValueError where they do not fit together: whoever calls an operator has not
    had them checked by the function that is in front of it.
    """

    check: Implementation
    run: Implementation
    fake: Implementation
    differentiate: Implementation


class LossOperator:
    """An operator whose last arguments are target, alpha and options, in one form for all.

    Args:
        name: of the operator.
        own: the schema of its arguments before the target.
        results: the schema of its results.
        implementations: what it is made of.
        has_kernel: whether the options' kernel is an argument.
    """

    def __init__(
        self,
        name: str,
        own: str,
        results: str,
        implementations: Implementations,
        has_kernel: bool = False,
    ) -> None:
        options = _OPTIONS + _KERNEL * has_kernel
        self._num_own, self._num_options = own.count(",") + 1, options.count(",") + 1
        self._implementations = implementations
        _, run, fake, differentiate = implementations
        self._overload = define_operator(
            name,
            f"({own}, Tensor target, {_ALPHA}, {options}) -> {results}",
            lambda *arguments: run(*self._checked(arguments)),
            lambda *arguments: fake(*self._structured(arguments)),
            lambda *arguments: differentiate(*self._checked(arguments)),
        )

    def __call__(self, *arguments: Any) -> Any:
        """Call it with its own arguments, target, alpha and options."""
        *own, target, alpha, options = arguments
        if torch.compiler.is_compiling():
            alpha = as_graph_input(alpha)
        packed = (1.0, alpha) if isinstance(alpha, Tensor) else (alpha, None)
        return self._overload(*own, target, *packed, *options[: self._num_options])

    def run(self, *arguments: Any) -> Any:
        """The same below autograd; directly where nobody traces, which saves time."""
        if is_eager(arguments[0]):
            return self._implementations.run(*arguments)
        with below_autograd():
            return self(*arguments)

    def _structured(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments of the schema as own arguments, target, alpha and options."""
        own, of_loss = arguments[: self._num_own], arguments[self._num_own :]
        target, alpha, alpha_tensor, *options = of_loss
        return *own, target, alpha if alpha_tensor is None else alpha_tensor, Options(*options)

    def _checked(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """The same with alpha read, where all of them are right."""
        *others, target, alpha, options = self._structured(arguments)
        if is_eager(target):
            self._implementations.check(*others, target, options)
        if torch.is_grad_enabled() and any(
            tensor is not None and tensor.requires_grad for tensor in (target, options.weight)
        ):
            raise NotImplementedError(
                "the operator has no derivative with respect to target and class weight; "
                "the functions tampered_cross_entropy and tampered_linear_cross_entropy have"
            )
        return *others, target, check_alpha(alpha), options


def as_graph_input(alpha: Alpha) -> Alpha:
    """A number that torch.compile knows to change, as a tensor; a constant as it is.

    As the argument of an operator of ours it would be a constant again, and compiled anew for
    every value: torch keeps what goes through its own elementwise operations.
    """
    if isinstance(alpha, Tensor) or has_static_value(alpha):
        return alpha
    return torch.zeros((), dtype=torch.float64, device="cpu") + alpha
