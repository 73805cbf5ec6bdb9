"""Models by their names: timm's, and places that hold one."""

from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from timm.models import save_for_hf
from torch import nn

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.models import create_model, find_model


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, nn.Module]:
    """A folder as of a hub, and the model in it."""
    torch.manual_seed(5)
    model = timm.create_model("test_resnet", num_classes=3)
    save_for_hf(model, tmp_path / "place", model_config={"label_names": ["a", "b", "c"]})
    return tmp_path / "place", model


def put_in_cache(folder: Path, cache: Path, name: str) -> None:
    """Lay a folder into the cache of a hub, as if it had been fetched."""
    entry = cache / f"models--{name.replace('/', '--')}"
    (entry / "snapshots").mkdir(parents=True)
    (entry / "refs").mkdir()
    (entry / "refs/main").write_text("0" * 40)
    folder.rename(entry / "snapshots" / ("0" * 40))


@pytest.mark.parametrize("place", ["local-dir", "hf-hub"])
@pytest.mark.parametrize("num_classes", [3, 5])
def test_a_place_gives_its_model_and_its_weights(
    saved: tuple[Path, nn.Module],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    num_classes: int,
) -> None:
    folder, model = saved
    name = f"local-dir:{folder}"
    if place == "hf-hub":
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        name = "hf-hub:somebody/net"
        put_in_cache(folder, tmp_path / "cache", "somebody/net")
    found = find_model(name)
    assert (found.name, found.architecture, found.has_fixed_size) == (name, "test_resnet", False)
    created = create_model(found, pretrained=True, num_classes=num_classes)
    assert created.num_classes == num_classes
    weights = created.state_dict()
    for key, tensor in model.state_dict().items():
        if num_classes == 3 or not key.startswith("fc."):
            assert torch.equal(weights[key], tensor), key


def test_without_pretrained_the_model_starts_anew_and_it_is_said(
    saved: tuple[Path, nn.Module],
) -> None:
    folder, model = saved
    with pytest.warns(UserWarning, match="without --pretrained: the weights there are not loaded"):
        created = create_model(f"local-dir:{folder}", num_classes=3)
    assert not torch.equal(created.state_dict()["fc.weight"], model.state_dict()["fc.weight"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt18", r"no such model; did you mean .*resnet18"),
        ("resnet18.nope", "resnet18.nope: Invalid pretrained tag"),
        ("timm/resnet18", "Use 'hf-hub:timm/resnet18' to load from the Hub or 'local-dir:timm/res"),
        ("ftp:resnet18", "Unknown model source 'ftp'.* valid sources: hf-hub, local-dir"),
        ("hf-hub:", "has no model id / path after the 'hf-hub:' prefix"),
        ("local-dir:nowhere", r"not found \(Config file not found: nowhere/config.json\)$"),
        (
            "hf-hub:somebody/net",
            "; without a network it must be in the local cache",
        ),
    ],
)
def test_a_wrong_name_is_one_line(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=message):
        create_model(name)


def test_a_wrong_option_is_one_line() -> None:
    with pytest.raises(UserError, match=r"digits_mlp does not take an option given: .*global_pool"):
        create_model("digits_mlp", global_pool="max")
