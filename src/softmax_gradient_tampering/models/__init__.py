"""Models, registered with timm: importing this room makes their names known to it.

Importing it imports all its files. It may import torch, timm and `errors`.
"""

from softmax_gradient_tampering.models import cifar_resnet, digits, published
from softmax_gradient_tampering.models.published import PUBLISHED_MODELS, create_model

__all__ = ["PUBLISHED_MODELS", "cifar_resnet", "create_model", "digits", "published"]
