"""Checkpoints: the published ones, ours under timm's loaders, and hostile ones."""

import gzip
import os
import pickle
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import load_checkpoint as timm_load
from timm.models import resume_checkpoint

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.loss import fold_alpha
from softmax_gradient_tampering.training.checkpoint.content import (
    OUR_KEY,
    completed_epochs,
    load_checkpoint,
)
from softmax_gradient_tampering.training.checkpoint.file import DamagedCheckpointError
from softmax_gradient_tampering.training.checkpoint.folder import CheckpointFolder
from softmax_gradient_tampering.training.checkpoint.state import RunState
from softmax_gradient_tampering.training.checkpoint.weights import load_best_weights
from softmax_gradient_tampering.training.config.arguments import parse_arguments
from softmax_gradient_tampering.training.step.position import Position
from tests.training.runs import train

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A checkpoint that the published program wrote: resnet18, 10 classes, 37 epochs done."""
    path = tmp_path / "published.pth.tar"
    packed = GOLDEN / "published-format-resnet18-c10.pth.tar.gz"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    return path


def test_a_published_checkpoint_loads_and_means_its_completed_epochs(published: Path) -> None:
    checkpoint = load_checkpoint(published)
    assert isinstance(checkpoint["args"], Namespace)
    assert (checkpoint["version"], completed_epochs(checkpoint)) == (2, 37)


def test_a_published_checkpoint_is_gone_on_with(
    published: Path, tmp_path: Path, make_images: Callable[..., Path]
) -> None:
    data = make_images(tmp_path / "photos", {f"c{n}": 2 for n in range(10)})
    words = ("--data_dir", data, "--model", "resnet18", "--img-size", 32, "-b", 10, "-j", 0)
    result = train(*words, "--epochs", 38, "--resume", published, "--lr", 0.1)
    assert [row["epoch"] for row in result.rows] == [38]
    validated = train(*words, "--validate", "--resume", published)
    assert validated.status == "validated"


def test_epochs_of_the_three_kinds() -> None:
    assert completed_epochs({"epoch": 5, "version": 2, "args": Namespace()}) == 6  # timm's
    assert completed_epochs({"epoch": 5, "version": 2, "args": Namespace(modify_softmax=0)}) == 5
    assert completed_epochs({"epoch": 5, "version": 1, "softmax_gradient_tampering": {}}) == 5


def test_timm_reads_ours_and_resumes_at_the_right_epoch() -> None:
    train("--epochs", 2, "--output", "out", "--experiment", "a", "--model-ema")
    path = "out/a/last.pth.tar"
    ours = load_checkpoint(Path(path))
    assert {"epoch", "arch", "state_dict", "optimizer", "args", "metric", "version"} <= set(ours)
    model = timm.create_model("digits_mlp")
    optimizer = timm.optim.create_optimizer_v2(model, "sgd", lr=0.1, weight_decay=1e-4)
    assert resume_checkpoint(model, path, optimizer) == 2
    assert torch.equal(model.fc.weight, ours["state_dict"]["fc.weight"])
    timm_load(model, path, use_ema=True)
    assert torch.equal(model.fc.weight, ours["state_dict_ema"]["fc.weight"])
    first = ours["optimizer"]["state"][0]["momentum_buffer"]
    assert torch.equal(optimizer.state_dict()["state"][0]["momentum_buffer"], first)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            import os

            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "evil.pth.tar"
    torch.save({"state_dict": {}, "args": Evil()}, path)
    with pytest.raises(UserError, match=r"damaged or unsafe: it asks for \w+\.mkdir$"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match=r"evil\.pth\.tar: not"):
        load_checkpoint(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_checkpoint_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pth.tar"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.pth\.tar: not") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_model_is_one_line() -> None:
    train("--epochs", 1, "--output", "out", "--experiment", "a")
    words = ("--validate", "--resume", "out/a/last.pth.tar")
    with pytest.raises(UserError, match=r"does not fit digits_cnn with 10 .*; it lacks") as e:
        train(*words, "--model", "digits_cnn")
    assert "\n" not in str(e.value)
    with pytest.raises(UserError, match=r"fc\.weight is \(10, 64\), not \(12, 64\) and 1 more"):
        train(*words, "--num-classes", 12)
    with pytest.raises(UserError, match=r"its --num-classes, or fine-tune .* by --initial-check"):
        train("--epochs", 2, "--num-classes", 12, "--resume", "out/a/last.pth.tar")


def test_an_optimizer_of_another_torch_may_lack_a_setting() -> None:
    words = ("--epochs", 2, "--output", "out")
    train(*words, "--experiment", "a", "--max-steps", 8)
    (path,) = Path("out/a").glob("recovery-*")
    checkpoint = load_checkpoint(path)
    del checkpoint["optimizer"]["param_groups"][0]["dampening"]
    torch.save(checkpoint, path)
    resumed = train(*words, "--experiment", "a", "--resume", "auto")
    whole = train(*words, "--experiment", "b")
    assert [row["train_loss"] for row in resumed.rows] == [row["train_loss"] for row in whole.rows]


@pytest.mark.parametrize(
    ("lower_is_better", "expected"), [(False, [(3, 9.0), (2, 7.0)]), (True, [(1, 5.0), (4, 5.0)])]
)
def test_the_best_are_kept_in_order(
    tmp_path: Path, lower_is_better: bool, expected: list[tuple[int, float]]
) -> None:
    folder, state = CheckpointFolder(tmp_path, 2), RunState()
    for epoch, metric in enumerate((5.0, 7.0, 9.0, 5.0, float("nan")), start=1):
        state.position = Position(epoch)
        state.rank(metric, 2, lower_is_better)
        folder.save_epoch({"epoch": epoch}, epoch, state.best)
    assert state.best == expected
    kept = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert kept == sorted(f"checkpoint-{epoch}.pth.tar" for epoch, _ in expected)
    best = torch.load(tmp_path / "model_best.pth.tar", weights_only=True)
    assert best == {"epoch": expected[0][0]}
    assert torch.load(tmp_path / "last.pth.tar", weights_only=True) == {"epoch": 5}


def test_a_folded_checkpoint_stays_marked_and_is_not_folded_again() -> None:
    train("--epochs", 1, "--output", "out", "--experiment", "a")
    path = Path("out/a/last.pth.tar")
    checkpoint = load_checkpoint(path)
    checkpoint[OUR_KEY]["folded_alpha"] = 0.25
    torch.save(checkpoint, path)
    model = timm.create_model("digits_mlp")
    config = parse_arguments(["--model", "digits_mlp"])
    load_best_weights(model, load_checkpoint(path), config)
    for module in (model, model.get_classifier()):
        with pytest.raises(ValueError, match=r"alpha = 0\.25 is already folded"):
            fold_alpha(module, 0.25)


def save_numbered(folder: Path, *names: str) -> dict[str, Path]:
    """A small checkpoint under every name; the first says that it is of epoch 1, and so on."""
    folder.mkdir(exist_ok=True)
    paths = {name: folder / f"{name}.pth.tar" for name in names}
    for epoch, path in enumerate(paths.values(), start=1):
        torch.save({"epoch": epoch, "state_dict": {}}, path)
    return paths


def refuse_reading(path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let a file fail to be read: permissions do not stop a superuser who runs the tests."""
    original = os.open

    def fail(opened: Any, *args: Any, **kwargs: Any) -> int:
        if os.fspath(opened) == str(path):
            raise error
        return original(opened, *args, **kwargs)

    monkeypatch.setattr(os, "open", fail)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), MemoryError()])
def test_a_checkpoint_that_cannot_be_read_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    paths = save_numbered(tmp_path, "previous", "last")
    refuse_reading(paths["last"], monkeypatch, error)
    with pytest.raises(UserError, match=r"last\.pth\.tar: not read .*; it may be whole"):
        CheckpointFolder(tmp_path).newest()


def test_checkpoints_of_a_newer_version_are_left_as_they_are() -> None:
    words = ("--output", "out", "--experiment", "a")
    train("--epochs", 2, *words, "--max-steps", 8)
    for path in Path("out/a").glob("*.pth.tar"):
        checkpoint = load_checkpoint(path)
        checkpoint[OUR_KEY]["format"] = 99
        path.unlink()  # it may be another one's second name
        torch.save(checkpoint, path)
    before = {path: path.read_bytes() for path in Path("out/a").iterdir()}
    with pytest.raises(UserError, match="format 99 is of a newer version"):
        train("--epochs", 2, *words, "--resume", "auto")
    assert {path: path.read_bytes() for path in Path("out/a").iterdir()} == before


def test_the_best_is_the_last_to_be_tried(tmp_path: Path) -> None:
    names = ("model_best", "checkpoint-2", "previous", "recovery-3-9", "last")
    paths = save_numbered(tmp_path, *names)
    tried = []
    for _ in names:
        newest = CheckpointFolder(tmp_path).newest()
        assert newest is not None
        tried.append(newest.content["epoch"])
        newest.path.write_bytes(b"PK damaged")
    assert tried == [5, 4, 3, 2, 1]
    assert CheckpointFolder(tmp_path).newest() is None
    assert all(path.exists() for path in paths.values())


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_does_not_hide_the_checkpoint_before(
    tmp_path: Path, make: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    save_numbered(tmp_path, "previous")
    make(tmp_path / "last.pth.tar")
    newest = CheckpointFolder(tmp_path).newest()
    assert newest is not None
    assert newest.path.name == "previous.pth.tar"
    assert "passed over: " in capsys.readouterr().out


def test_a_folder_in_the_place_of_a_checkpoint_stops_a_run_at_its_start() -> None:
    words = ("--epochs", 1, "--output", "out", "--experiment", "a")
    Path("out/a/last.pth.tar").mkdir(parents=True)
    with pytest.raises(UserError, match=r"last\.pth\.tar: a folder, .*move it away"):
        train(*words, "--resume", "auto")
    Path("out/a/last.pth.tar").rmdir()
    os.mkfifo("out/a/last.pth.tar")
    assert train(*words, "--resume", "auto").status == "finished"
    assert load_checkpoint(Path("out/a/last.pth.tar"))["epoch"] == 1


def test_files_of_the_users_own_stay(tmp_path: Path) -> None:
    kept = save_numbered(tmp_path, "checkpoint-keep-1", "recovery-of-monday", "checkpoint-\u0661")
    folder = tmp_path / "checkpoint-7.pth.tar"
    folder.mkdir()
    gone = save_numbered(tmp_path, "checkpoint-8", "recovery-8-3")
    CheckpointFolder(tmp_path).save_epoch({"epoch": 9, "state_dict": {}}, 9, [(9, 1.0)])
    assert all(path.exists() for path in (*kept.values(), folder))
    assert not any(path.exists() for path in gone.values())


def test_what_a_library_says_at_length_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_numbered(tmp_path, "last")["last"]

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("x" * 5000)

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(UserError, match=r"RuntimeError: x+") as caught:
        load_checkpoint(path)
    assert len(str(caught.value)) < 500


def test_the_last_shares_no_bytes_with_the_best(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, 2)
    for epoch in (1, 2):
        best = [(number, 0.0) for number in range(epoch, 0, -1)]
        folder.save_epoch({"epoch": epoch, "state_dict": {}}, epoch, best)
    for name in ("model_best", "checkpoint-2", "previous"):
        assert not (tmp_path / f"{name}.pth.tar").samefile(tmp_path / "last.pth.tar")
    os.truncate(tmp_path / "model_best.pth.tar", 100)
    assert load_checkpoint(tmp_path / "last.pth.tar")["epoch"] == 2
    assert load_checkpoint(tmp_path / "previous.pth.tar")["epoch"] == 1


def test_damage_of_any_bit_is_told_from_a_file_that_is_not_for_this_version(tmp_path: Path) -> None:
    path = save_numbered(tmp_path, "last")["last"]
    content = path.read_bytes()
    for place in range(len(content)):  # the directory's places and sizes have no checksum
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with suppress(DamagedCheckpointError):
            load_checkpoint(path)
