"""timm's and torchvision's training scripts, changed as docs/integrations.md says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.integrations.run_page import PAGE
from tests.test_docs import blocks_of

TIMM = os.environ.get("TIMM_TRAIN_SCRIPT", "")
TORCHVISION = os.environ.get("TORCHVISION_REFERENCES", "")
NUM_CLASSES = 6


def changed(script: str, block_number: int) -> str:
    """A script with the change of one of the page's blocks: +, - and what stays."""
    blocks = [block.text for block in blocks_of(PAGE) if block.text.startswith("+ ")]
    first, *lines = blocks[block_number].splitlines()
    before = "".join(f"{line[2:]}\n" for line in lines if line[0] in " -")
    after = "".join(f"{line[2:]}\n" for line in lines if line[0] in " +")
    assert script.count(before) == 1
    assert script.count("import torch\n") == 1
    script = script.replace(before, after)
    return script.replace("import torch\n", f"import torch\n{first[2:]}\n")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in range(NUM_CLASSES):
            place = folder / split / str(label)
            place.mkdir(parents=True)
            for number in range(4):
                pixels = generator.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


def losses(script: Path, pattern: str, *words: str | Path) -> list[float]:
    """The losses that a script prints, from one seed."""
    seeded = (
        "import runpy, sys, torch; torch.manual_seed(0); del sys.argv[0]; "
        "sys.path.insert(0, sys.argv[0].rpartition('/')[0]); "
        "runpy.run_path(sys.argv[0], {}, '__main__')"
    )
    command = [sys.executable, "-c", seeded, script, *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return [float(loss) for loss in re.findall(pattern, done.stdout + done.stderr)]


def assert_tampered(ours: list[float], theirs: list[float]) -> None:
    """The first step has the same value; the weights differ from then on."""
    assert ours[0] == theirs[0]
    assert ours[-1] != theirs[-1]


@pytest.mark.skipif(not TIMM, reason="TIMM_TRAIN_SCRIPT does not say where timm's train.py is")
@pytest.mark.parametrize(
    "branch", ["--smoothing 0", "--smoothing 0.1", "--mixup 0.5", "--bce-loss --smoothing 0.1"]
)
def test_every_branch_of_timms_script_is_tampered(
    branch: str, images: Path, tmp_path: Path
) -> None:
    words: list[str | Path] = [
        "--data-dir",
        images,
        "--model",
        "test_resnet",
        "--num-classes",
        str(NUM_CLASSES),
    ]
    words += ["--img-size", "32", "-b", "8", "--epochs", "1", "--workers", "0", "--device", "cpu"]
    words += ["--lr", "0.5", "--warmup-epochs", "0", "--log-interval", "1", *branch.split()]
    script = tmp_path / "train.py"
    script.write_text(changed(Path(TIMM).read_text(), 0))
    assert_tampered(
        *(
            losses(each, r"Train: .*Loss: (\S+)", *words, "--output", tmp_path / name)
            for name, each in (("ours", script), ("theirs", Path(TIMM)))
        )
    )


@pytest.mark.skipif(not TORCHVISION, reason="TORCHVISION_REFERENCES does not say where they are")
@pytest.mark.parametrize("mixup", ["0", "0.2"])
def test_torchvisions_classification_is_tampered(mixup: str, images: Path, tmp_path: Path) -> None:
    words: list[str | Path] = [
        "--data-path",
        images,
        "--model",
        "shufflenet_v2_x0_5",
        "--device",
        "cpu",
        "-b",
        "8",
    ]
    words += ["--epochs", "1", "-j", "0", "--output-dir", "", "--print-freq", "1", "--lr", "0.5"]
    words += [f"--{name}-size=32" for name in ("val-resize", "val-crop", "train-crop")]
    words += ["--label-smoothing", "0.1", "--mixup-alpha", mixup]
    folder = Path(TORCHVISION) / "classification"
    for path in folder.glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text())
    script = tmp_path / "train.py"
    theirs = losses(script, r"Epoch: .* loss: (\S+)", *words)
    script.write_text(changed(script.read_text(), 1))
    assert_tampered(losses(script, r"Epoch: .* loss: (\S+)", *words), theirs)


@pytest.mark.skipif(not TORCHVISION, reason="TORCHVISION_REFERENCES does not say where they are")
def test_torchvisions_segmentation_is_tampered() -> None:
    script = (Path(TORCHVISION) / "segmentation" / "train.py").read_text()
    gradients = []
    for text in (script, changed(script, 2)):
        function = re.findall(r"^def criterion.*?(?=^def )", text, re.MULTILINE | re.DOTALL)[0]
        imports = re.findall(r"^from softmax.*$", text, re.MULTILINE)
        names: dict[str, object] = {}
        exec("\n".join(["from torch import nn", *imports, function]), names)
        torch.manual_seed(0)
        z = torch.randn(2, 3, 4, 4, requires_grad=True)
        outputs = {"out": z, "aux": 2 * z}
        loss = names["criterion"](outputs, torch.randint(3, (2, 4, 4)))  # type: ignore[operator]
        gradients.append((loss, *torch.autograd.grad(loss, z)))
    (theirs, of_theirs), (ours, of_ours) = gradients
    assert torch.allclose(ours, theirs)
    assert not torch.allclose(of_ours, of_theirs, rtol=0.1)
