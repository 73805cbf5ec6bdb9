"""Input that is wrong on purpose: refused in one line, nothing executed or written outside."""

import io
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softmax_gradient_tampering.cli import main
from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.recipes.catalogue import recipe_path
from softmax_gradient_tampering.training.checkpoint.content import OUR_KEY, load_checkpoint
from softmax_gradient_tampering.training.config.arguments import (
    FIELDS,
    load_config,
    parse_arguments,
)
from softmax_gradient_tampering.training.config.refusals import check_config
from tests.training.runs import train

# An hour of it: make fuzz MINUTES=60
EXAMPLES = int(os.environ.get("SGT_FUZZ_EXAMPLES", "150"))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="SGT_FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

names = st.sampled_from(sorted(FIELDS))
scalars = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    st.sampled_from(
        ["auto", "..", "../../x", "\x1b[31m", "a" * 300, "1e400", "nan", "-0", "!!int"]
    ),
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=5)


def one_line(error: UserError) -> None:
    assert "\n" not in str(error)


@fuzz
@given(st.lists(st.tuples(names, st.lists(scalars.map(str), max_size=3)), max_size=4))
def test_command_lines(flags: list[tuple[str, list[str]]]) -> None:
    words = [word for name, given in flags for word in (f"--{name}", *given)]
    try:
        check_config(parse_arguments(words))
    except UserError as error:
        one_line(error)


@fuzz
@given(st.dictionaries(st.one_of(names, st.text(max_size=9)), values, max_size=4))
def test_configurations_of_any_values(own_folder: Path, given: dict[str, Any]) -> None:
    import yaml

    path = own_folder / "config.yaml"
    path.write_text(yaml.safe_dump(given), encoding="utf-8", errors="surrogatepass")
    try:
        check_config(load_config(path))
    except UserError as error:
        one_line(error)


@fuzz
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(alphabet="a:-[]{}!&*#|>'\"\n ,?%@`", max_size=60).map(str.encode),
    )
)
def test_configurations_of_any_bytes(own_folder: Path, given: bytes) -> None:
    path = own_folder / "config.yaml"
    path.write_bytes(given)
    try:
        load_config(path)
    except UserError as error:
        one_line(error)


@pytest.mark.parametrize(
    "text",
    [
        "lr: !!python/object/apply:os.system ['touch ran']",
        "lr: !!python/name:os.system",
        "a: &a [x, x]\nb: &b [*a, *a]\nlr: [*b, *b]",
        "lr: 2001-99-99",
        "? [a]\n: b",
        "[" * 5000,
    ],
    ids=["code", "name", "bomb", "date", "list as a key", "deep"],
)
def test_yaml_that_is_more_than_settings(own_folder: Path, text: str) -> None:
    path = own_folder / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(path)
    one_line(caught.value)
    assert not Path("ran").exists()


@fuzz
@given(
    st.one_of(st.text(), st.sampled_from(["../arguments", "/etc/passwd", "resnet18/../../x", ""]))
)
def test_recipe_names(given: str) -> None:
    with pytest.raises(UserError) as caught:
        recipe_path(given)
    one_line(caught.value)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train("--epochs", 2, "--output", folder, "--experiment", "a", "--max-steps", 8)
    return folder / "a" / "recovery-1-8.pth.tar"


@fuzz
@given(number=st.integers(0, 2**32))
def test_checkpoints_with_wrong_bytes(own_folder: Path, checkpoint: Path, number: int) -> None:
    draw = random.Random(number)
    content = bytearray(checkpoint.read_bytes())
    for _ in range(draw.choice([1, 1, 8, 64])):
        content[draw.randrange(len(content))] = draw.randrange(256)
    if draw.random() < 0.3:
        content = content[: draw.randrange(len(content))]
    path = own_folder / "damaged.pth.tar"
    path.write_bytes(content)
    try:
        load_checkpoint(path)
    except UserError as error:
        one_line(error)


@fuzz
@given(number=st.integers(0, 2**32), value=values)
def test_checkpoints_with_wrong_values(
    own_folder: Path, checkpoint: Path, number: int, value: Any
) -> None:
    """A run goes on with what is right in form, and refuses what is not."""
    draw = random.Random(number)
    content = load_checkpoint(checkpoint)
    inner: Any = content
    while True:
        place = draw.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        if not isinstance(inner[place], dict | list) or not inner[place] or draw.random() < 0.4:
            break
        inner = inner[place]
    if isinstance(inner, dict) and draw.random() < 0.2:
        del inner[place]
    else:
        inner[place] = value
    path = own_folder / "odd.pth.tar"
    torch.save(content, path)
    words = ("--epochs", 2, "--output", own_folder / str(number), "--max-steps", 9)
    try:
        train(*words, "--resume", path)
    except UserError as error:
        one_line(error)


@pytest.mark.parametrize("count", [2**63, 1e19, float("inf"), float("nan"), -1, 10**400])
@pytest.mark.parametrize("place", [1, 2])
def test_counts_that_no_run_reaches_are_refused(
    own_folder: Path, checkpoint: Path, place: int, count: float
) -> None:
    content = load_checkpoint(checkpoint)
    content[OUR_KEY]["tallies"][0][place] = count
    torch.save(content, own_folder / "odd.pth.tar")
    with pytest.raises(UserError, match="tallies must be a list of a sum of losses and two counts"):
        load_checkpoint(own_folder / "odd.pth.tar")


def test_a_checkpoint_that_unpacks_to_any_size_is_refused(own_folder: Path) -> None:
    path = own_folder / "bomb.pth.tar"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr("archive/data.pkl", bytes(10_000_000))
        parts.writestr("../../climbs", b"x")
    with pytest.raises(UserError, match="is compressed"):
        load_checkpoint(path)
    assert sorted(path.name for path in own_folder.iterdir()) == ["bomb.pth.tar"]


def test_deep_pickles_are_refused(own_folder: Path) -> None:
    path = own_folder / "deep.pth.tar"
    stream = io.BytesIO()
    stream.write(pickle.PROTO + b"\x02" + b"]" * 200_000 + b"a" * 199_999 + b".")
    path.write_bytes(stream.getvalue())
    with pytest.raises(UserError, match=r"deep\.pth\.tar: not"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "name", ["..", ".image-checks", " ", "a/b", "\x1b[2J", "x" * 300, "a\nb", "\0"]
)
def test_names_that_leave_the_folder_or_write_to_the_terminal(
    name: str, own_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--experiment", name]) == 2
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    assert line.rstrip("\n").isprintable()
    assert list(own_folder.iterdir()) == []


def test_a_newer_format_is_named(own_folder: Path, checkpoint: Path) -> None:
    content = load_checkpoint(checkpoint)
    content[OUR_KEY]["format"] = 99
    torch.save(content, own_folder / "new.pth.tar")
    with pytest.raises(UserError, match="format 99 is of a newer version"):
        load_checkpoint(own_folder / "new.pth.tar")


def deep_list() -> list[Any]:
    """A list in a list, and so on, as deep as torch.save goes."""
    outermost: list[Any] = []
    for _ in range(200):
        outermost = [outermost]
    return outermost


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        (("args", "lr"), torch.zeros(3), "args must be plain settings by name"),
        (("args", "aa"), deep_list(), "args must be plain settings by name"),
        (("args", "seed"), 10**400, "args must be plain settings by name"),
        (("args", "alpha_end"), "\x1b[2Jx", "args must be plain settings by name"),
        (("args", "alpha_end"), [1], "args must be plain settings by name"),
        ((OUR_KEY, "rows", 0, "new_column"), 1.0, "rows must be rows of summary.csv"),
        ((OUR_KEY, "position", "\x1b[2J"), 1, "is unknown"),
        ((OUR_KEY, "num_samples"), "\x1b[2J", "num_samples must be a whole number from 0"),
        (
            (OUR_KEY, "position", "batch"),
            10**9,
            "1000000000 batches into an epoch, and only",
        ),
        (("epoch",), 10**9, "1000000000 epochs behind it, and the run has 2"),
    ],
    ids=["tensor", "deep", "huge", "text", "list", "column", "key", "samples", "batch", "epoch"],
)
def test_values_that_no_run_writes(
    own_folder: Path, checkpoint: Path, keys: Any, value: Any, reason: str
) -> None:
    content = load_checkpoint(checkpoint)
    inner: Any = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    if keys == ("epoch",):
        content[OUR_KEY]["position"]["epoch"] = value
    torch.save(content, own_folder / "odd.pth.tar")
    words = ("--epochs", 2, "--output", own_folder, "--resume", own_folder / "odd.pth.tar")
    with pytest.raises(UserError, match=reason) as caught:
        train(*words)
    assert str(caught.value).isprintable()


def test_settings_of_a_checkpoint_are_printed_cut_and_without_control_characters(
    own_folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = load_checkpoint(checkpoint)
    content["args"]["aa"] = "\x1b]0;title\x07" + "x" * 5000
    content["args"]["scale"] = [0.5] * 5000
    content["args"]["opt"] = "\x1b[2J"
    content["arch"] = "\x1b[2J"
    path = own_folder / "odd.pth.tar"
    torch.save(content, path)
    words = ("--epochs", 2, "--output", own_folder, "--resume", path, "--max-steps", 9)
    train(*words, "--no-resume-opt", is_silent=False)
    assert main(["checkpoint", "show", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("Note: aa is") for line in lines)
    assert all(line.isprintable() and len(line) < 300 for line in lines)
    assert main(["checkpoint", "show", str(path), "--args"]) == 0
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())
