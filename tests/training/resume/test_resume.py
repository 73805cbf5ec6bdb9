"""A run that was stopped and resumed equals the unbroken one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.files.whole import link_whole
from softmax_gradient_tampering.training.checkpoint import folder as checkpoint
from softmax_gradient_tampering.training.checkpoint.content import OUR_KEY, load_checkpoint
from softmax_gradient_tampering.training.records.run_files import Row, read_summary
from tests.training.runs import assert_same_run, program, train

# 1,347 images: 6 batches an epoch, the last of 67.
DIGITS = ("--epochs", 3, "--modify-softmax", 0.25, "--logit-stats", "--output", "out")

VARIANTS = {
    "plain": (),
    "bare": ("--modify-softmax", 0, "--opt", "adamw", "--lr", "1e-3"),
    "accumulated": ("--grad-accum-steps", 4),
    "averaged": ("--model-ema", "--model-ema-decay", 0.9, "--eval-metric", "loss"),
    "mixed": ("--mixup", 0.3, "--cutmix", 0.5, "--smoothing", 0.1, "--drop", 0.2),
    "erased": ("--reprob", 0.5, "--remode", "pixel", "--model", "digits_cnn"),
    "float16": ("--amp-dtype", "float16", "--clip-grad", 1),
    "plateau": ("--sched", "plateau", "--patience-epochs", 0, "--lr", 2),
    "noisy plateau": ("--sched", "plateau", "--patience-epochs", 0, "--lr-noise", 0.1),
    "published": ("--sched-order", "published", "--sched", "step", "--decay-epochs", 1),
    "weighted": ("--class-weights", "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]", "--smoothing", 0.1),
    "sparse": ("--eval-every", 2, "--checkpoint-hist", 1),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stop", [8, 12], ids=["in the middle", "at an epoch's end"])
def test_a_resumed_run_equals_the_unbroken_one(variant: str, stop: int) -> None:
    words = (*DIGITS, *VARIANTS[variant])
    if "--grad-accum-steps" in words:
        stop = {8: 3, 12: 4}[stop]  # two optimizer steps an epoch
    whole = train(*words, "--experiment", "whole")
    stopped = train(*words, "--experiment", "broken", "--max-steps", stop)
    assert (whole.status, stopped.status) == ("finished", "stopped")
    resumed = train(*words, "--experiment", "broken", "--resume", "auto")
    assert resumed.status == "finished"
    assert_same_run(Path("out/broken"), Path("out/whole"))


def test_a_folder_run_resumes_from_a_recovery_checkpoint_with_any_number_of_workers(
    tmp_path: Path, make_images: Callable[..., Path]
) -> None:
    data = make_images(tmp_path / "photos", {"ant": 9, "bee": 8})
    words: tuple[Any, ...] = (
        "--data_dir",
        data,
        "--model",
        "resnet20",
        "--img-size",
        32,
        "-b",
        4,
        "--epochs",
        2,
    )
    words += ("--reprob", 0.5, "--aa", "rand-m9-mstd0.5", "--output", "out")
    train(*words, "-j", 0, "--experiment", "whole", "--recovery-interval", 2)
    train(*words, "-j", 2, "--experiment", "broken", "--recovery-interval", 2, "--max-steps", 7)
    assert Path("out/broken/recovery-1-7.pth.tar").exists()
    Path("out/broken/recovery-1-7.pth.tar").unlink()
    train(*words, "-j", 1, "--experiment", "broken", "--recovery-interval", 2, "--resume", "auto")
    for name in ("whole", "broken"):  # the one setting in which they differ, on purpose
        path = Path("out", name, "args.yaml")
        path.write_text(path.read_text().replace("workers: 1", "workers: 0"))
    rows, expected = (read_summary(Path("out", n, "summary.csv")) for n in ("broken", "whole"))
    drop: Row = {"images_per_s": None}
    assert [row | drop for row in rows] == [row | drop for row in expected]


def test_the_newest_two_recovery_checkpoints_are_kept() -> None:
    train(*DIGITS, "--experiment", "a", "--recovery-interval", 1, "--max-steps", 11)
    names = sorted(path.name for path in Path("out/a").glob("recovery-*"))
    assert names == ["recovery-1-10.pth.tar", "recovery-1-11.pth.tar"]


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    capsys: pytest.CaptureFixture[str],
) -> None:
    train(*DIGITS, "--experiment", "whole")
    train(*DIGITS, "--experiment", "a", "--recovery-interval", 1, "--max-steps", 11)
    newest = Path("out/a/recovery-1-11.pth.tar")
    newest.write_bytes(newest.read_bytes()[:5000])
    train(*DIGITS, "--experiment", "a", "--resume", "auto")
    assert "passed over: out/a/recovery-1-11.pth.tar" in capsys.readouterr().out
    rows, expected = (read_summary(Path("out", n, "summary.csv")) for n in ("a", "whole"))
    drop: Row = {"images_per_s": None}
    assert [row | drop for row in rows] == [row | drop for row in expected]


def test_resume_auto_starts_afresh_and_leaves_a_finished_run_alone() -> None:
    words = (*DIGITS, "--experiment", "a", "--resume", "auto")
    assert train(*words).status == "finished"
    before = {path: path.stat().st_mtime_ns for path in Path("out/a").iterdir()}
    assert train(*words).status == "already finished"
    assert {path: path.stat().st_mtime_ns for path in Path("out/a").iterdir()} == before


def test_a_run_without_its_result_is_finished_by_resumption() -> None:
    train(*DIGITS, "--experiment", "a")
    result = json.loads(Path("out/a/result.json").read_text())
    Path("out/a/result.json").unlink()
    train(*DIGITS, "--experiment", "a", "--resume", "auto")
    again = json.loads(Path("out/a/result.json").read_text())
    assert again["measurements"] == result["measurements"]
    assert again["resumes"] == result["resumes"] + 1


def test_resuming_from_a_path_carries_the_history_into_a_new_folder() -> None:
    train(*DIGITS, "--experiment", "whole")
    train(*DIGITS, "--experiment", "first", "--max-steps", 12)
    last = Path("out/first").glob("recovery-*")
    train(*DIGITS, "--experiment", "second", "--resume", next(last))
    rows = read_summary(Path("out/second/summary.csv"))
    assert [row["epoch"] for row in rows] == [1, 2, 3]


def test_the_best_checkpoint_stays_the_best_across_a_resumption() -> None:
    words = (*DIGITS, "--experiment", "a", "--checkpoint-hist", 1, "--lr", 0.5)
    whole = train(*words[:-4], "--lr", 0.5, "--experiment", "b", "--checkpoint-hist", 1)
    train(*words, "--max-steps", 13)
    train(*words, "--resume", "auto")
    tops = [row["eval_top1"] or 0 for row in whole.rows]
    best = 1 + tops.index(max(tops))
    assert [path.name for path in Path("out/a").glob("checkpoint-*")] == [
        f"checkpoint-{best}.pth.tar"
    ]


def test_a_folder_that_holds_a_run_is_not_written_to() -> None:
    train(*DIGITS, "--experiment", "a", "--max-steps", 7)
    before = {path: path.read_bytes() for path in Path("out/a").iterdir()}
    with pytest.raises(UserError, match="already holds a run; go on with it by --resume auto"):
        train(*DIGITS, "--experiment", "a")
    assert {path: path.read_bytes() for path in Path("out/a").iterdir()} == before


def test_a_resumption_may_not_destroy_another_run() -> None:
    train(*DIGITS, "--experiment", "a")
    train(*DIGITS, "--experiment", "b", "--seed", 1)
    before = {path: path.read_bytes() for path in Path("out/a").iterdir()}
    with pytest.raises(UserError, match="already holds another run"):
        train(*DIGITS, "--experiment", "a", "--resume", "out/b/last.pth.tar")
    (older,) = {path.name for path in Path("out/a").glob("checkpoint-*")} - {"checkpoint-3.pth.tar"}
    with pytest.raises(UserError, match=r"last\.pth\.tar of the same folder is further on"):
        train(*DIGITS, "--experiment", "a", "--resume", f"out/a/{older}")
    words = ("--model", "digits_cnn", "--resume", "out/a/last.pth.tar")
    with pytest.raises(UserError, match="does not fit digits_cnn"):
        train(*DIGITS, "--experiment", "a", *words)
    assert {path: path.read_bytes() for path in Path("out/a").iterdir()} == before


@pytest.mark.parametrize("changed", [("--seed", 9), ("--opt", "adamw")], ids=lambda words: words[0])
def test_a_begun_epoch_goes_on_in_its_order_with_its_optimizer(changed: tuple[str, float]) -> None:
    train(*DIGITS, "--experiment", "a", "--max-steps", 8)
    with pytest.raises(UserError, match=r"in the middle of an epoch|optimizer is sgd"):
        train(*DIGITS, "--experiment", "a", "--resume", "auto", *changed)


@pytest.mark.parametrize(
    "changed",
    [("-b", 100), ("-b", 2000), ("--grad-accum-steps", 3), ("-b", 128, "--mixup", 0.5)],
    ids=lambda words: " ".join(map(str, words)),
)
def test_a_begun_epoch_goes_on_with_batches_of_another_size_and_may_be_resumed_again(
    changed: tuple[str | float, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    # Two batches of 256 into the second epoch.
    train(*DIGITS, "--experiment", "broken", "--max-steps", 8)
    shutil.copytree("out/broken", "out/whole")
    words = (*DIGITS, "--resume", "auto", *changed)
    assert train(*words, "--experiment", "whole", is_silent=False).status == "finished"
    said = capsys.readouterr().out
    assert "it goes on after its first 512 of 1347" in said
    assert "the learning rate stays as it is" in said
    train(*words, "--experiment", "broken", "--max-steps", 9)
    capsys.readouterr()
    train(*words, "--experiment", "broken", is_silent=False)
    assert "it goes on after" not in capsys.readouterr().out
    assert_same_run(Path("out/broken"), Path("out/whole"))


def test_the_sums_of_a_resized_epoch_are_over_every_sample() -> None:
    # A rate of 0: the loss of every sample is the same wherever the epoch is cut.
    words = (*DIGITS, "--epochs", 1, "--lr", 0, "--model", "digits_mlp_plain")
    train(*words, "--experiment", "whole")
    train(*words, "--experiment", "cut", "--max-steps", 2)
    train(*words, "--experiment", "cut", "--resume", "auto", "-b", 100, "--max-steps", 5)
    train(*words, "--experiment", "cut", "--resume", "auto", "-b", 61)
    (whole,), (cut,) = (read_summary(Path("out", name, "summary.csv")) for name in ("whole", "cut"))
    assert cut["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-6)
    assert cut["train_acc"] == whole["train_acc"]


def test_a_run_goes_on_with_fewer_and_with_more_processes() -> None:
    words = (*DIGITS, "-b", 100, "--experiment", "a", "--resume", "auto")
    for processes, stop in ((2, 4), (1, 12), (2, 99)):
        done = program(*words, "--max-steps", stop, processes=processes)
        assert done.returncode == 0, done.stderr
        if stop > 4:
            assert "the learning rate stays as it is" in done.stdout
    assert len(read_summary(Path("out/a/summary.csv"))) == 3


def test_other_settings_are_remarked_on(capsys: pytest.CaptureFixture[str]) -> None:
    train(*DIGITS, "--experiment", "a", "--max-steps", 8)
    words = ("--lr", 0.3, "--smoothing", 0.1)
    train(*DIGITS, "--experiment", "a", "--resume", "auto", *words, is_silent=False)
    output = capsys.readouterr().out
    assert "Warning: --lr 0.3 is not obeyed" in output
    assert "Note: smoothing is 0.1, and was 0.0 in the checkpoint" in output


def test_a_validation_says_what_its_images_differ_in(
    tmp_path: Path, make_images: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_images(tmp_path / "photos", {"ant": 2, "bee": 2})
    words = ("--data_dir", data, "--model", "test_resnet", "-b", 2, "-j", 0, "--output", "out")
    train(*words, "--img-size", 64, "--epochs", 1, "--experiment", "a")
    again = (*words, "--validate", "--resume", "out/a/last.pth.tar")
    train(*again, "--img-size", 64, is_silent=False)
    assert "in the checkpoint" not in capsys.readouterr().out
    train(*again, "--img-size", 32, "--crop-pct", 1, is_silent=False)
    output = capsys.readouterr().out
    assert "Note: img_size is 32, and was 64 in the checkpoint" in output
    assert "Note: crop_pct is 1.0, and was None in the checkpoint" in output


def test_a_checkpoint_that_counts_batches_alone_goes_on_at_the_same_place() -> None:
    train(*DIGITS, "--experiment", "whole")
    for stop in (8, 12):  # the second one after an epoch's last batch, which is a smaller one
        train(*DIGITS, "--experiment", f"{stop}", "--max-steps", stop)
        (path,) = Path(f"out/{stop}").glob("recovery-*")
        content = load_checkpoint(path)
        for name in ("samples", "taken"):
            del content[OUR_KEY]["position"][name]
        torch.save(content, path)
        train(*DIGITS, "--experiment", f"{stop}", "--resume", "auto")
        assert_same_run(Path(f"out/{stop}"), Path("out/whole"))


def test_a_kill_between_a_checkpoint_and_its_copies_loses_neither(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train(*DIGITS, "--experiment", "whole")
    count = iter(range(100))

    def killed(source: Path, path: Path, lasts: bool) -> None:
        if next(count) == 3:
            raise KeyboardInterrupt
        link_whole(source, path, lasts)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "link_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            train(*DIGITS, "--experiment", "broken")
    train(*DIGITS, "--experiment", "broken", "--resume", "auto")
    assert_same_run(Path("out/broken"), Path("out/whole"))


def test_three_processes_resume_as_one_run() -> None:
    # The sums over three depend on their order, as those over two do not.
    words = (*DIGITS, "-b", 128, "--amp", "--model-ema", "--model-ema-decay", 0.8)
    for extra in (("whole",), ("broken", "--max-steps", 8), ("broken", "--resume", "auto")):
        done = program(*words, "--experiment", *extra, processes=3)
        assert done.returncode == 0, done.stderr
    assert_same_run(Path("out/broken"), Path("out/whole"))
