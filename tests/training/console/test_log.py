"""What a person sees of a run besides the published fields."""

import gzip
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from softmax_gradient_tampering.cli import main
from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.training.config.fields import Config
from softmax_gradient_tampering.training.console import progress as module
from softmax_gradient_tampering.training.console.lines import warning_lines
from softmax_gradient_tampering.training.console.progress import Progress, as_clock
from softmax_gradient_tampering.training.records.run_files import read_summary
from softmax_gradient_tampering.training.step.precision import Precision, is_slow_on_this_cpu
from tests.training.runs import train

DIGITS = ("--output", "out", "--experiment", "a")
GOLDEN = Path(__file__).parents[1] / "golden"
CLOCK = r"\d+:\d\d:\d\d"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00:00"), (0.1, "0:00:01"), (59.5, "0:01:00"), (90061, "25:01:01")]
)
def test_a_clock_is_zero_for_no_time_alone(seconds: float, shown: str) -> None:
    assert as_clock(seconds) == shown


def test_the_epochs_and_the_end_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--epochs", 2, "--modify-softmax", 0.5, "--model-ema", *DIGITS)
    result = train(*words, is_silent=False)
    first, last = result.rows
    output = capsys.readouterr().out
    assert re.search(
        rf"^\[  1\] Val Acc: +\d+, {first['eval_top1']:.3f}  Loss: {first['eval_loss']:.4f}  "
        rf"EMA Acc: {first['eval_top1_ema']:.3f}  Epoch: {CLOCK}  Elapsed: {CLOCK}$",
        output,
        re.MULTILINE,
    ), output
    measured = result.measurements["softmax(alpha z)"]
    end = [
        rf"Finished: 2 epochs, 12 optimizer steps in {CLOCK}",
        re.escape(
            f"Last epoch: top-1 {last['eval_top1']:.2f} %  top-5 {last['eval_top5']:.2f} %  "
            f"loss {last['eval_loss']:.4f}"
        ),
        r"softmax\(z\): NLL .* %",
        rf"softmax\(alpha z\): NLL {measured['nll']:.4f} .* ECE {measured['ece']:.2f} %",
        r"\*\*\* Best metric: \d+\.\d\d \(epoch [12]\)",
        "Run folder: out/a",
    ]
    assert re.search("^" + "\n".join(end) + r"\n\Z", output, re.MULTILINE), output


def test_without_tampering_the_calibration_is_shown_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    train("--epochs", 1, "--final-validate", "--eval-metric", "loss", *DIGITS, is_silent=False)
    output = capsys.readouterr().out
    assert output.count("ECE") == output.count("Metrics: OrderedDict") == 1
    assert re.search(r"Best metric: \d\.\d{4} \(epoch 1\)", output)


def test_the_time_left_is_of_the_whole_run_at_its_mean_pace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    progress = Progress(is_silent=False, num_epochs=10, as_lines=True)
    progress.start(2, 0, 4)
    now = 500.0
    progress.batch(2, 1, 4, ["Loss", "LR", "img/s"])  # half an epoch in 500 s
    now = 2000.0  # and the rest of it with its evaluation in 1,500 s
    progress.start(3, 0, 4)
    now = 4000.0
    progress.batch(3, 3, 4, ["Loss", "LR", "img/s"])
    etas = re.findall(rf"ETA: ({CLOCK})", capsys.readouterr().out)
    assert etas == [as_clock(7.5 * 1000), as_clock(6 * 2000)]


def test_an_evaluation_shows_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    train("--epochs", 1, "-b", 50, "--log-interval", 4, *DIGITS, is_silent=False)
    lines = capsys.readouterr().out.splitlines()
    shown = [line for line in lines if line.startswith("   Validating")]
    assert shown == ["   Validating:    4/   8", "   Validating:    8/   8"]


def test_on_a_terminal_the_bar_shows_how_far_an_evaluation_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Bar:
        def __init__(self) -> None:
            self.shown: list[tuple[object, ...]] = []

        def show(self, *values: object, **_: object) -> None:
            self.shown.append(values)

    bar = Bar()
    monkeypatch.setattr(module, "open_bar", lambda _: bar)
    progress = Progress(is_silent=False, num_epochs=3, as_lines=False)
    progress.evaluated(0, 9)
    progress.start(1, 0, 4)
    progress.evaluated(4, 9)
    shown = [("validating", 1, 9), ("epoch 2/3", 4, 12), ("epoch 2/3, validating 5/9",)]
    assert bar.shown == shown


@pytest.mark.parametrize(
    ("words", "top"),
    [
        (("--epochs", 3, "--warmup-epochs", 5, "--warmup-lr", 0, "--lr", 0.5), "0.2"),
        (("--epochs", 3, "--warmup-epochs", 3, "--warmup-lr", 0, "--lr", 0.3), "0.2"),
        (
            ("--epochs", 2, "--cooldown-epochs", 1, "--warmup-epochs", 3, "--warmup-lr", 0.07),
            "0.09",
        ),
        (("--epochs", 3, "--warmup-epochs", 2), None),
        (("--epochs", 3, "--warmup-epochs", 3, "--sched-order", "published"), None),
        (("--epochs", 3, "--warmup-epochs", 5, "--lr", 0.001), None),  # it falls to --lr
    ],
)
def test_a_warm_up_that_does_not_end_is_warned_of(
    words: tuple[str | float, ...], top: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    train("--dry-run", *words, is_silent=False)
    output = capsys.readouterr().out
    highest = max(float(line.split(",")[1]) for line in output.split("epoch,lr\n")[1].split())
    if top is None:
        assert "never reaches" not in output
    else:
        assert f"the learning rate rises to {top} and never reaches --lr" in output
        assert highest == pytest.approx(float(top))


@pytest.mark.parametrize(
    ("flags", "is_slow"),
    [("avx512f avx512_bf16", False), ("avx2 avx512f", True), ("asimd bf16", False)],
)
def test_half_types_without_instructions_are_warned_of(
    flags: str, is_slow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert is_slow_on_this_cpu(torch.bfloat16, path) is is_slow
    assert not is_slow_on_this_cpu(None, path)
    assert not is_slow_on_this_cpu(torch.bfloat16, tmp_path / "none")
    lines = "softmax_gradient_tampering.training.console.lines.is_slow_on_this_cpu"
    monkeypatch.setattr(lines, lambda dtype: is_slow_on_this_cpu(dtype, path))
    precision = Precision(torch.device("cpu"), torch.bfloat16)
    warned = " ".join(warning_lines(Config(amp=True), 90, precision))
    assert ("--amp: this CPU has no instructions for bfloat16" in warned) is is_slow


def test_a_finished_run_says_what_would_extend_it(capsys: pytest.CaptureFixture[str]) -> None:
    train("--epochs", 1, *DIGITS)
    train("--epochs", 1, *DIGITS, "--resume", "auto", is_silent=False)
    assert capsys.readouterr().out == "out/a: this run is finished; nothing to do\n"
    words = ("--epochs", 3, *DIGITS)
    assert train(*words, "--resume", "auto", is_silent=False).status == "already finished"
    output = capsys.readouterr().out
    assert "finished, after 1 epochs; to train it on to 3" in output
    path = output.split("--resume auto: --resume ")[1].strip()
    assert [row["epoch"] for row in train(*words, "--resume", path).rows] == [1, 2, 3]


@pytest.mark.parametrize("extra", [(), ("--dry-run",)])
def test_batches_of_one_under_batch_norm_are_one_line(
    extra: tuple[str, ...], make_images: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_images(tmp_path / "photos", {"ant": 2, "bee": 2})
    words = ("--data_dir", data, "--model", "test_resnet", "-b", 1, "-j", 0, "--epochs", 1)
    with pytest.raises(UserError, match=r"--batch-size 1: .*layer4\.0\.bn1.* needs two; give"):
        train(*words, "--img-size", 32, *DIGITS, *extra)
    assert not Path("out").exists()
    assert train(*words, "--img-size", 64, *DIGITS).status == "finished"


def test_the_checkpoints_learning_rate_is_gone_on_with_and_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("--epochs", 3, "--output", "out", "--warmup-epochs", 1)
    train(*words, "--lr", 0.2, "--experiment", "whole")
    train(*words, "--lr", 0.2, "--experiment", "a", "--max-steps", 8)
    train(*words, "--lr", 0.3, "--experiment", "a", "--max-steps", 10, "--resume", "auto")
    train(*words, "--experiment", "a", "--resume", "auto", is_silent=False)
    output = capsys.readouterr().out
    assert "Note: lr is the checkpoint's 0.2, not the default 0.1" in output
    assert "not obeyed" not in output
    rows, expected = (read_summary(Path("out", n, "summary.csv")) for n in ("a", "whole"))
    assert [(row["lr"], row["train_loss"]) for row in rows] == [
        (row["lr"], row["train_loss"]) for row in expected
    ]
    assert "\nlr: 0.2\n" in Path("out/a/args.yaml").read_text()


def test_a_published_checkpoint_warns_of_no_flag_that_was_not_given(
    tmp_path: Path, make_images: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "published.pth.tar"
    packed = GOLDEN / "published-format-resnet18-c10.pth.tar.gz"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    data = make_images(tmp_path / "photos", {f"c{n}": 1 for n in range(10)})
    argv = f"train --data_dir {data} --model resnet18 --img-size 32 -b 10 -j 0 --dry-run"
    assert main([*argv.split(), "--epochs", "38", "--resume", str(path)]) == 0
    output = capsys.readouterr().out
    assert "not obeyed" not in output
    assert "is the checkpoint's" in output
