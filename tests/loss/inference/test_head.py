"""The heads of models that people have: timm's and torchvision's, made from configurations."""

from typing import Any

import pytest
import torch
from torch import nn

from softmax_gradient_tampering import fold_alpha
from softmax_gradient_tampering.loss.inference.head import find_classifier, find_heads
from tests.loss.cases import assert_equal
from tests.loss.inference.models import ConvHead, Distilled, HeadFirst, TimmLike

timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

TINY_DEIT = {"depth": 1, "embed_dim": 24, "num_heads": 2, "img_size": 32}
TINY_LEVIT = {"embed_dim": (16, 24, 32), "key_dim": 8, "depth": (1, 1, 1), "num_heads": (1, 2, 2)}
TINY_CROSSVIT = {"depth": ((1, 1, 0),), "embed_dim": (16, 24), "num_heads": (2, 2)}
# name: (arguments, size of the image, names of the heads)
TIMM: dict[str, tuple[dict[str, Any], int, list[str]]] = {
    "test_vit": ({}, 160, ["head"]),
    "test_byobnet": ({}, 64, ["head.fc"]),
    "test_convnext3": ({}, 64, ["head.fc"]),
    "test_mambaout": ({}, 64, ["head.fc"]),  # an MLP, of which this is the end
    "test_efficientnet": ({}, 64, ["classifier"]),
    "dla46_c": ({}, 64, ["fc"]),  # a convolution
    "deit_tiny_distilled_patch16_224": (TINY_DEIT, 32, ["head", "head_dist"]),
    "levit_128s": (TINY_LEVIT, 224, ["head.linear", "head_dist.linear"]),
    "crossvit_tiny_240": (TINY_CROSSVIT, 240, ["head.0", "head.1"]),
    "repvit_m0_9": ({"distillation": False}, 64, ["head.head.l"]),
}
TORCHVISION = {
    "resnet18": "fc",
    "mobilenet_v3_small": "classifier.3",
    "convnext_tiny": "classifier.2",
    "swin_t": "head",
    "vit_b_32": "heads.head",
    "googlenet": "fc",  # beside two auxiliary ones
}


def names_of(model: nn.Module, layers: tuple[nn.Module, ...]) -> list[str]:
    return [name for name, module in model.named_modules() if any(module is m for m in layers)]


@pytest.mark.parametrize("name", TIMM)
def test_the_heads_of_timm_models(name: str) -> None:
    arguments, size, heads = TIMM[name]
    torch.manual_seed(0)
    model = timm.create_model(name, **arguments).eval()
    assert names_of(model, find_heads(model)) == heads
    image = torch.randn(1, 3, size, size)
    with torch.no_grad():
        logits = model(image)
        fold_alpha(model, 0.25, example_input=image)
        assert_equal(model(image), 0.25 * logits)


@pytest.mark.filterwarnings("ignore:.*GoogleNet:FutureWarning")
@pytest.mark.parametrize("name", TORCHVISION)
def test_the_heads_of_torchvision_models(name: str) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    assert names_of(model, find_heads(model)) == [TORCHVISION[name]]
    if not isinstance(getattr(model, "fc", None), nn.Linear):
        return
    model.fc = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))  # as people replace it
    assert names_of(model, find_heads(model)) == ["fc.2"]


@pytest.mark.parametrize("name", ["squeezenet1_1", "segmentation.fcn_resnet50"])
def test_torchvision_models_whose_logits_are_no_layers_are_refused(name: str) -> None:
    file, _, model_name = name.rpartition(".")
    library = getattr(torchvision.models, file) if file else torchvision.models
    with torch.device("meta"):
        model = getattr(library, model_name)(
            weights=None, **{"weights_backbone": None} if file else {}
        )
    with pytest.raises(ValueError, match="is not certain"):
        find_heads(model)


@pytest.mark.parametrize("name", ["metaformer", "repvit with two heads"])
def test_a_head_of_several_layers_is_found_by_name(name: str) -> None:
    torch.manual_seed(0)
    if name == "metaformer":
        model = timm.models.metaformer.MetaFormer(depths=(1, 1), dims=(8, 16), use_mlp_head=True)
        heads = ["head.fc.fc2"]
    else:
        model = timm.create_model("repvit_m0_9")
        heads = ["head.head", "head.head_dist"]
    image = torch.randn(1, 3, 64, 64)
    with pytest.raises(ValueError, match="has 2 linear layers"):
        find_heads(model)
    logits = model.eval()(image)
    fold_alpha(model, 0.25, head=heads, example_input=image)
    assert_equal(model(image), 0.25 * logits)


def test_a_classifier_is_one_linear_layer() -> None:
    model = TimmLike()
    assert find_classifier(model) is model.fc
    for other in (Distilled(), ConvHead()):
        with pytest.raises(ValueError, match=r"are not one nn\.Linear's"):
            find_classifier(other)
    with pytest.raises(ValueError, match="is not certain"):
        find_classifier(HeadFirst())
