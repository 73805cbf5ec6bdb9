"""What the data decides of a configuration: the model and the number of classes."""

from dataclasses import replace

from softmax_gradient_tampering.data.factory import Dataset
from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.config.fields import Config


def resolve(config: Config, dataset: Dataset) -> Config:
    """Fill in the model and the number of classes.

    Raises:
        UserError: the data does not fit what the configuration says of it.
    """
    _check_classes(config, dataset)
    if dataset.image_size is not None and (config.img_size or config.input_size):
        size = "x".join(map(str, dataset.image_size[1:]))
        raise UserError(
            f"--img-size and --input-size: the images of {dataset.name} are {size} and are not "
            "resized; leave them out"
        )
    if dataset.image_size is not None and config.aug_splits:
        raise UserError(f"--aug-splits needs images in folders; {dataset.name} is kept in memory")
    default_model = "resnet20" if config.cifar else "resnet18"
    if dataset.name == "digits":
        default_model = "digits_mlp"
    return replace(
        config,
        model=config.model or default_model,
        num_classes=config.num_classes or dataset.num_classes,
    )


def _check_classes(config: Config, dataset: Dataset) -> None:
    if config.num_classes is not None and config.num_classes < dataset.num_classes:
        raise UserError(
            f"--num-classes {config.num_classes}: {dataset.name} has labels up to "
            f"{dataset.num_classes - 1}; give at least {dataset.num_classes}, or leave it out"
        )
    if dataset.num_classes == 0 and config.num_classes is None:
        raise UserError(f"{dataset.name}: its classes cannot be counted; give --num-classes")
    if dataset.num_classes == 1:
        raise UserError(f"{dataset.name}: one class only; a classifier needs at least two")
