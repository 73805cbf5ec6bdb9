"""What is refused for not being a tensor, in one sentence for every function of the loss."""

from torch import Tensor


def check_tensors(optional: tuple[str, ...] = (), **named: object) -> None:
    """Check that every argument is a tensor; an optional one may be None.

    Raises:
        TypeError: one is something else, such as numpy's array.
    """
    for name, value in named.items():
        if not (isinstance(value, Tensor) or (value is None and name in optional)):
            raise TypeError(
                f"{name} must be a tensor, not {type(value).__name__}; "
                "torch.as_tensor makes one of an array"
            )
