"""What the data decides of a configuration: the model and the number of classes."""

import math
from dataclasses import replace

from softmax_gradient_tampering.data.factory import Dataset
from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.config.class_weights import (
    BALANCED,
    inline_class_weights,
    order_class_weights,
    parse_class_weights,
)
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
        class_weights=inline_class_weights(config.class_weights),
    )


def find_class_weights(config: Config, dataset: Dataset) -> list[float] | None:
    """What an image of each class counts in the loss; None where --class-weights is not given.

    The average training image counts 1, so that the weights change no learning rate's meaning.
    Balanced, the images of every class count the same together.

    Args:
        config: resolved.
        dataset: that it was resolved with.

    Raises:
        UserError: the weights do not fit the classes, or its images cannot be counted.
    """
    if not config.class_weights:
        return None
    assert config.num_classes is not None
    counts = dataset.count_classes(is_training=True)
    if counts is None:
        raise UserError(
            f"--class-weights: {dataset.name} does not say how many training images each class "
            "has; use images in folders"
        )
    names = dataset.class_names
    counts += [0] * (config.num_classes - len(counts))
    if config.class_weights == BALANCED:
        if 0 in counts:
            number = counts.index(0)
            name = names[number] if number < len(names) else str(number)
            raise UserError(
                f"--class-weights balanced: class {name!r:.60} has no training images; leave it "
                "out of the classes, or give a file of weights"
            )
        weights = [1 / count for count in counts]
    else:
        given = parse_class_weights(config.class_weights)
        weights = order_class_weights(given, names, config.num_classes)
    total = math.fsum(weight * count for weight, count in zip(weights, counts, strict=True))
    if total == 0:
        raise UserError("--class-weights: every class that has training images has the weight 0")
    return [weight * sum(counts) / total for weight in weights]


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
