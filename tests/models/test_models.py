"""The models: the published seven as published, ours as their papers say."""

import csv
from pathlib import Path

import pytest
import timm
import torch

from softmax_gradient_tampering.models import PUBLISHED_MODELS, create_model

GOLDEN = Path(__file__).parent / "golden"

NUM_PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet18_wobn": 11_679_912,
    "seresnet18": 11_779_624,
    "seresnet50": 28_088_024,
    "seresnet101": 49_326_872,
    "resnet20": 269_722,
    "resnet20_wobn": 268_346,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "resnet18_cifar": 11_173_962,
    "resnet18_cifar_wobn": 11_164_362,
    "digits_mlp": 9_098,
    "digits_mlp_plain": 8_832,
    "digits_cnn": 6_138,
    "digits_cnn_wobn": 6_090,
}


@pytest.mark.parametrize(("name", "expected"), NUM_PARAMETERS.items())
def test_number_of_parameters(name: str, expected: int) -> None:
    assert sum(p.numel() for p in create_model(name).parameters()) == expected


@pytest.mark.parametrize("name", ["resnet18", "resnet18_wobn", "seresnet18"])
def test_published_names_shapes_and_initial_values(name: str) -> None:
    torch.manual_seed(0)
    state = create_model(name).state_dict()
    with (GOLDEN / f"{name}_keys.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == list(state)
    for row in rows:
        tensor = state[row["key"]]
        assert row["shape"] == ("x".join(map(str, tensor.shape)) or row["shape"])
        if row["init_mean_seed0"] and tensor.is_floating_point():
            # The published figures have six digits.
            assert tensor.mean().item() == pytest.approx(float(row["init_mean_seed0"]), rel=1e-5)


def test_published_models_start_without_zeroed_branches_and_can_have_them() -> None:
    published = create_model("resnet18").state_dict()["layer1.0.bn2.weight"]
    timms = create_model("resnet18", zero_init_last=True).state_dict()["layer1.0.bn2.weight"]
    assert (published == 1).all()
    assert (timms == 0).all()


def test_timm_knows_the_names() -> None:
    names = set(timm.list_models())
    assert {"resnet18_wobn", "resnet1202", "digits_mlp_plain"} <= names
    assert set(PUBLISHED_MODELS) <= names


@pytest.mark.parametrize("name", ["resnet20", "digits_cnn", "digits_mlp", "resnet18_wobn"])
def test_our_models_have_timms_interface(name: str) -> None:
    model = create_model(name, num_classes=7)
    channels, *size = model.pretrained_cfg["input_size"]  # type: ignore[index]
    images = torch.zeros(2, channels, *([32, 32] if size[0] > 32 else size))
    features = model.forward_head(model.forward_features(images), pre_logits=True)  # type: ignore
    assert features.shape == (2, model.num_features)
    assert model(images).shape == (2, 7)
    model.reset_classifier(3)  # type: ignore[operator]
    assert model.get_classifier().out_features == 3  # type: ignore[operator]


def test_the_plain_digits_net_is_positively_homogeneous() -> None:
    model = create_model("digits_mlp_plain")
    images = torch.randn(4, 1, 8, 8)
    assert torch.allclose(model(2 * images), 2 * model(images), rtol=1e-5)


@pytest.mark.parametrize("name", ["resnet18_cifar", "resnet18_cifar_wobn"])
def test_resnet18_of_small_images_keeps_their_size_up_to_its_first_stride(name: str) -> None:
    model = create_model(name).eval()
    sizes = []
    model.get_submodule("layer1").register_forward_hook(lambda *call: sizes.append(call[2].shape))
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert sizes == [(1, 64, 32, 32)]
