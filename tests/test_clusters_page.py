"""docs/clusters.md and docs/reproduce.md: their commands parse, their tables are computed."""

import importlib.util
import random
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.datasets.imagenet import ARCHIVE_META

from softmax_gradient_tampering.cli import main
from softmax_gradient_tampering.commands import data
from softmax_gradient_tampering.recipes.catalogue import recipe_names, recipe_path
from softmax_gradient_tampering.studies.analysis.verdict import Verdict, compare, judge
from softmax_gradient_tampering.studies.plan.reproduction import parse_reproduction
from softmax_gradient_tampering.training.config.arguments import load_config, parse_arguments
from softmax_gradient_tampering.training.config.refusals import check_config
from tests.test_docs import ROOT, Block, blocks_of

PAGE = ROOT / "docs" / "clusters.md"
BLOCKS = [
    block
    for page in (PAGE, ROOT / "docs" / "reproduce.md")
    for block in blocks_of(page)
    if block.language == "bash"
]


def commands_in(block: Block) -> Iterator[list[str]]:
    """The words of every `sgt` command of a block, whatever starts it."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if line.startswith(("#", "docker build")):
            continue
        words = shlex.split(line.partition(">")[0], comments=True)
        if "sgt" in words:
            yield words[len(words) - words[::-1].index("sgt") :]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_the_commands_of_the_pages_parse(
    block: Block, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("IMAGENET").mkdir()
    for name in ("_imagenet", "_check"):
        monkeypatch.setattr(data, name, lambda _: 0)
    for name, *words in commands_in(block):
        if name == "train":
            check_config(parse_arguments(words, find_recipe=recipe_path))
        elif name == "reproduce":
            parse_reproduction(words)
        elif name in ("data", "recipes"):
            assert main([name, *words]) == 0
        else:
            assert main([name, *words]) == 2
            assert re.search(r"no study there|no such|nothing", capsys.readouterr().err)


def test_the_pages_have_the_commands_that_they_are_about() -> None:
    named = {name for block in BLOCKS for name, *_ in commands_in(block)}
    assert named == {"data", "reproduce", "train", "study", "report", "recipes"}


def test_the_archives_have_their_checksums() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert {f"{digest}  {name}" for name, digest in ARCHIVE_META.values()} == set(
        re.findall(r"^[0-9a-f]{32}  \S+$", text, re.MULTILINE)
    )


def load_tool() -> ModuleType:
    path = ROOT / "tools" / "write_cluster_tables.py"
    spec = importlib.util.spec_from_file_location("write_cluster_tables", path)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


TOOL = load_tool()
SLOW = ("resnet50", "resnet101", "seresnet50")


@pytest.mark.parametrize(
    "model",
    [pytest.param(m, marks=pytest.mark.slow if m in SLOW else ()) for m in TOOL.BATCHES],
)
def test_the_table_of_memory_is_counted(model: str) -> None:
    rows = re.findall(rf"^\| {model} \| .*", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == TOOL.memory_rows(model)


def test_every_row_is_in_the_table_of_memory() -> None:
    for name in recipe_names():
        config = load_config(recipe_path(name))
        assert config.batch_size in TOOL.BATCHES[config.model]


def test_the_table_of_seeds_is_computed() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index("| gain in points") :].partition("\n\n")[0]
    assert table.splitlines()[2:] == TOOL.seed_rows()


def test_what_is_kept_is_what_a_hand_counts() -> None:
    """Of two layers in bfloat16: the input, the hidden units once, the second layer's weights."""
    model = nn.Sequential(nn.Linear(8, 4, bias=False), nn.ReLU(), nn.Linear(4, 3, bias=False))
    images = torch.rand(16, 8)
    by_hand = 2 * (16 * 8 + 16 * 4 + 4 * 3)
    assert TOOL.kept_bytes(model, images) == by_hand


def test_shapes_alone_count_what_tensors_do() -> None:
    def net() -> nn.Module:
        layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2))
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(36, 5))

    with FakeTensorMode():
        of_shapes = TOOL.kept_bytes(net(), torch.empty(2, 3, 8, 8))
    of_tensors = TOOL.kept_bytes(net(), torch.rand(2, 3, 8, 8))
    # Mean and deviation of the four channels, which shapes alone take for half numbers.
    assert of_tensors - of_shapes == 2 * 4 * (4 - 2)


@pytest.mark.parametrize(("gain", "sd"), [(0.2, 0.2), (0.5, 0.4), (0.3, 0.1)])
def test_so_many_seeds_find_a_gain_in_about_four_of_five_studies(gain: float, sd: float) -> None:
    """By the verdicts themselves, in 400 made-up studies; certain where the gain is large."""
    generator = random.Random(0)
    number = TOOL.seeds_needed(gain, sd)
    found = 0
    for _ in range(400):
        treated = {seed: generator.gauss(gain, sd) for seed in range(number)}
        comparison = compare(treated, dict.fromkeys(treated, 0.0))
        found += judge({"arm": comparison}, margin=0.01)["arm"].verdict is Verdict.HELPS
    assert found >= 400 * 0.72
    assert found <= 400 * 0.88 or number == 6
