"""The program as a user meets it: commands, output, mistakes."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from softmax_gradient_tampering.cli import main
from softmax_gradient_tampering.training.records.run_files import COLUMNS, Row, read_summary
from tests.training.runs import train, user_program

# The published README's recipe, but for paths, image size, batch size, epochs and --dali.
RECIPE = (
    *("--amp", "--momentum", 0.9, "--weight-decay", "5e-4", "--sched", "cosine"),
    *("--model", "resnet18", "--batch-size", 4, "--lr", "1e-1", "--epochs", 2),
    *("--warmup-epochs", 1, "--cooldown-epochs", 1, "--modify-softmax", 0.25, "--logit-stats"),
    *("--img-size", 32, "--output", "out", "--experiment", "recipe"),
)
LINE = (
    r"   \[  1:    1/   1\]  Loss: \d\.\d{3}  LR: 0\.0100  img/s: *\d+  ETA: \d+:\d\d:\d\d  "
    r"Acc: +\d+\.\d\d  LStat: [ .\d]+,[.\d]+,[ .\d]+,[ .\d]+"
)


@pytest.fixture
def photos(tmp_path: Path, make_images: Callable[..., Path]) -> Path:
    return make_images(tmp_path / "photos", {"ant": 4, "bee": 6})


@pytest.mark.parametrize("processes", [0, 2])
def test_the_published_recipe_runs(photos: Path, processes: int) -> None:
    batch = ("--batch-size", 2) if processes else ()
    done = user_program("--data_dir", photos, *RECIPE, *batch, processes=processes)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "Gradient tampering is active at softmax: 0.25" in lines
    assert sum(line.startswith("   [") for line in lines) == 3, done.stdout
    assert any(re.fullmatch(LINE, line) for line in lines), done.stdout
    assert "\r" not in done.stdout
    rows = read_summary(Path("out/recipe/summary.csv"))
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(row["logit_norm"] is not None for row in rows)
    header = Path("out/recipe/summary.csv").read_text().splitlines()[0]
    assert header.split(",") == list(COLUMNS)
    result = json.loads(Path("out/recipe/result.json").read_text())
    assert (result["status"], result["epochs"], result["steps"]) == ("finished", 3, 6)
    assert set(result["measurements"]) == {"softmax(z)", "softmax(alpha z)"}


def test_a_runs_own_arguments_repeat_it() -> None:
    words = ("--epochs", 2, "--modify-softmax", 0.3, "--smoothing", 0.1, "--output", "out")
    train(*words, "--experiment", "one")
    train("--config", "out/one/args.yaml", "--output", "out", "--experiment", "two")
    one, two = (read_summary(Path("out", name, "summary.csv")) for name in ("one", "two"))
    drop: Row = {"images_per_s": None}
    assert [row | drop for row in one] == [row | drop for row in two]
    assert Path("out/one/args.yaml").read_text() == Path("out/two/args.yaml").read_text()


def test_a_dry_run_shows_the_plan_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--dry-run", "--epochs", "3", "--warmup-epochs", "1"]) == 0
    output = capsys.readouterr().out
    assert "modify_softmax: 0.0" in output
    assert "9,098 parameters" in output
    assert "3 epochs of 6 batches and 6 optimizer steps" in output
    assert "epoch,lr\n0,0.01\n1,0.07502" in output
    assert list(Path().iterdir()) == []


def test_validation_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    train("--epochs", 3, "--output", "out", "--experiment", "a", "--modify-softmax", 0.25)
    before = sorted(Path().rglob("*"))
    argv = ["validate", "--resume", "out/a/last.pth.tar"]
    assert main(argv) == 0
    assert sorted(Path().rglob("*")) == before
    top1 = read_summary(Path("out/a/summary.csv"))[-1]["eval_top1"]
    assert top1 is not None
    output = capsys.readouterr().out
    assert f"Val Acc:   {round(4.5 * top1):3d}, {top1:.3f}" in output
    assert "alpha 0.25 of softmax(alpha z) is the checkpoint's" in output
    measured = json.loads(Path("out/a/result.json").read_text())["measurements"]
    assert f"softmax(alpha z): NLL {measured['softmax(alpha z)']['nll']:.4f}" in output


def test_a_validation_of_nothing_trained_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("Warning: neither --resume nor --initial-checkpoint")


def test_gradient_statistics_and_other_sinks(capsys: pytest.CaptureFixture[str]) -> None:
    argv = "train --epochs 1 --grad-stats --modify-softmax 0.25 --log tensorboard --save-images"
    assert main([*argv.split(), "--output", "out", "--experiment", "a"]) == 0
    found = re.search(r"GStat: (\S+),(\S+)\n", capsys.readouterr().out)
    assert found
    low, high = map(float, found.groups())
    assert -1 / 67 <= low < 0 < high < 1 / 67  # (p' - q) / N, of a last batch of 67
    assert list(Path("out/a/tensorboard").glob("events*"))
    assert Path("out/a/train-1-5.jpg").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("-b", 5000),
        ("-b", 1347),
        ("-j", 0),
        ("--mixup", 0.2, "-b", 7),
        ("--checkpoint-hist", 0),
        ("--grad-accum-steps", 50),
        ("--model-ema", "--model-ema-force-cpu"),
        ("--bn-tf", "--bn-momentum", 0.2, "--bn-eps", 1e-4, "--dist-bn", "reduce"),
        ("--no-channels-last", "--no-pin-mem", "--no-prefetcher", "--use-multi-epochs-loader"),
        ("--sched", "tanh", "--lr-noise", 0.4, 0.9, "--lr-cycle-limit", 2),
        ("--train-continuous", 2, "--final-validate", "--print-model"),
        ("--start-epoch", 1),
        ("--modify-softmax", 1.5),
        ("--modify-softmax", 0.25, "--loss-kernel", "reference"),
        ("--modify-softmax", 0.25, "--opt", "adahessian", "--lr", 0.01),
        ("-b", 673),  # a last batch of one sample is left out
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_unusual_settings_simply_work(words: tuple[str | float, ...]) -> None:
    assert train("--epochs", 2, *words).status == "finished"


def test_few_classes_and_one_batch_an_epoch_work(photos: Path) -> None:
    words = ("--data_dir", photos, "--model", "resnet20", "--img-size", 32, "--epochs", 1)
    assert train(*words, "-b", 64, "-j", 0).rows[0]["eval_top5"] == 100.0


MISTAKES = {
    "--modify-sofmax 0.25": r"did you mean --modify-softmax\?",
    "--modify-softmax -1": r"--modify-softmax -1\.0: must be at least 0",
    "--loss-kernel cpu": "--loss-kernel cpu without --modify-softmax",
    "--modify-softmax 0.5 --loss-kernel gpu": "invalid choice: 'gpu'",
    "--modify-softmax 0.5 --loss-kernel triton --device cpu": "'triton' cannot run on cpu",
    "--data_dir nowhere": "nowhere: no such folder",
    "--data_dir photos --num-classes 1": "--num-classes 1: photos has labels up to 1",
    "--data_dir single": "one class only",
    "--model resnt18": "no such model; did you mean",
    "--epochs 0": "--epochs 0: must be above 0",
    "--seed 18446744073709551616": "--seed 18446744073709551616: .* of at most 64 bits",
    "--seed -1": "--seed -1: must be at least 0",
    "--smoothing 2": r"--smoothing 2\.0: must be from 0 to 1",
    "--resume auto": "--resume auto needs --experiment",
    "--resume nowhere.pth.tar": r"nowhere\.pth\.tar: no such file",
    "--initial-checkpoint nowhere": "nowhere: no such checkpoint",
    "--validate --resume nowhere": "nowhere: no such checkpoint",
    "--experiment ../elsewhere": "must be a plain folder name",
    "--output file": "file/.*: cannot be made",
    "--img-size 32": "the images of digits are 8x8 and are not resized",
    "--custom-loss": "--custom-loss is refused: ",
    "--apex-amp": "use --amp",
    "--torchscript": "--torchcompile",
    "--tta 2": "--tta is refused: ",
    "--epoch-repeats 2": "--epoch-repeats is refused: ",
    "--dali": "--dali reads image folders: give --data_dir",
    "--dali --data_dir photos --cifar 10": "--dali reads image folders",
    "--dali --data_dir photos --aa rand-m9": "--dali crops and flips only: leave --aa out",
    "--dali --data_dir photos --aug-splits 3": "leave --aug-splits out",
    "--dali --data_dir photos --color-jitter 0.2": "--dali has no color jitter",
    "--dali --data_dir photos --train-interpolation box": "DALI has bilinear, bicubic",
    "--dali-gpu --device cpu --data_dir photos": "--dali-gpu decodes on a GPU, and",
    "--dali-antialias": "--dali-antialias needs --dali",
    "--on-bad-image skip": "digits: --on-bad-image skip is for images in folders",
    "--sync-bn": "--sync-bn needs GPUs",
    "--jsd": "--jsd needs --aug-splits",
    "--jsd --aug-splits 3 --modify-softmax 0.5": "use one of the two",
    "--opt nadammm": "--opt nadammm: timm has no such optimizer; did you mean nadam",
    "--device cuda:7": "--device cuda:7: not usable here",
    "--mean 0.1 0.2": r"one value, or one for every channel",
    "--modify-softmax inf": "--modify-softmax inf: must be finite",
    "--img-size -5": "--img-size -5: must be above 0",
    "--scale 0.5": "--scale: expected 2 arguments",
    "--scale 0.9 0.1": r"--scale 0\.9 0\.1: the smaller one first",
    "--color-jitter -1": "must be at least 0",
    "--crop-pct 1e-9": "must be from 0.01 to 1",
    "--opt adamw --opt-betas 0.9": "--opt adamw or an option of it",
    "--cutmix-minmax 0.2": "expected 2 arguments",
    "--bn-momentum 2": "must be from 0 to 1",
    "--input-size 4 32 32": "1 or 3",
    "--std 0": r"--std 0\.0: must be above 0",
    "--data_dir photos --model resnet18 --img-size 32 --aa foo": "--aa, --scale",
    "--data_dir photos --model resnet18 --img-size 32 --gp foo": "--model resnet18: cannot be made",
    "--model convnext_atto": "--model convnext_atto takes no 1x8x8 images",
    "--aug-splits 2": "--aug-splits needs images in folders",
    "--cifar 10 --dataset torch/cifar10": "name one data set",
    "--start-epoch 1": "--start-epoch 1: the run's 1 epochs count from 0",
    "--validate --resume auto --experiment none": "no checkpoint of --experiment none",
    "--train-interpolation cubist": "invalid choice: 'cubist'",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2_and_nothing_written(
    mistake: str, photos: Path, make_images: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    if mistake.startswith("--dali-gpu"):
        pytest.importorskip("nvidia.dali")
    make_images(Path("single"), {"ant": 4})
    Path("file").write_text("")
    before = sorted(Path().rglob("*"))
    assert main(["train", "--epochs", "1", "-j", "0", *mistake.split()]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(rf"sgt train: error: [^\n]*{MISTAKES[mistake]}[^\n]*\n", error), error
    assert sorted(Path().rglob("*")) == before


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert main(["--version"]) == 0
    assert main(["trian"]) == 2
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    output = capsys.readouterr()
    assert "alpha of the softmax gradient tampering" in output.out
    assert "unknown command 'trian'" in output.err


def test_a_full_disk_leaves_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third checkpoint meets a full disk: the second and its row stay whole."""
    import torch

    from softmax_gradient_tampering.errors import UserError

    save, count = torch.save, iter(range(100))

    def fill_up(checkpoint: object, file: BinaryIO, **options: Any) -> None:
        if next(count) == 2:
            raise OSError(28, "No space left on device")
        save(checkpoint, file, **options)

    monkeypatch.setattr(torch, "save", fill_up)
    words = ("--epochs", 3, "--output", "out", "--experiment", "a")
    with pytest.raises(UserError, match=r"No space left.*; what was there before is untouched"):
        train(*words)
    assert torch.load("out/a/last.pth.tar", weights_only=True)["epoch"] == 2
    assert not Path("out/a/result.json").exists()
    assert [path.name for path in Path("out/a").glob(".*")] == []
    train(*words, "--resume", "auto")
    assert [row["epoch"] for row in read_summary(Path("out/a/summary.csv"))] == [1, 2, 3]


def test_ctrl_c_ends_with_130_and_a_hint(tmp_path: Path) -> None:
    code = "import sys; from softmax_gradient_tampering.cli import run_command\n"
    code += "def stop(argv): raise KeyboardInterrupt\n"
    code += "sys.exit(run_command('sgt train', stop, []))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.count("\n") == 1
    assert "--resume auto" in done.stderr
