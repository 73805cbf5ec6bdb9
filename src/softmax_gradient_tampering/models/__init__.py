"""Models, registered with timm: importing this room makes their names known to it.

Importing it imports all its files. It may import torch, timm and `errors`.
"""

from softmax_gradient_tampering.models import cifar_resnet, digits, published
from softmax_gradient_tampering.models.creation import NamedModel, create_model, find_model
from softmax_gradient_tampering.models.published import PUBLISHED_MODELS

__all__ = [
    "PUBLISHED_MODELS",
    "NamedModel",
    "cifar_resnet",
    "create_model",
    "digits",
    "find_model",
    "published",
]
