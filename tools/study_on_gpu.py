"""Does tampering help a ResNet on CIFAR-10? A study on one GPU, in a given time.

DATA holds train/CLASS/ and val/CLASS/ of 32x32 images, or the python batches of CIFAR-10. Two
studies run beside each other, of the net with batch normalisation and of the one without, each
with alphas 1, 0.5, 0.25 and 0.1, the equivalent ordinary trainings, and ordinary training with its
learning rate tuned. Each begins with one seed; from what that took follows how many seeds fit,
before any result is looked at. What is unfinished when the time is over is stopped. It ends with
the first sentence and the table of both reports. A second call with the same words does what is
missing.
"""

import argparse
import multiprocessing
import os
import pickle
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from softmax_gradient_tampering.data.memory.loaders import Images
    from softmax_gradient_tampering.studies.launch.runner import Runner
    from softmax_gradient_tampering.studies.results.study_folder import StudyFolder

# What imports torch is imported where it is needed: three processes do so at the same time.


class Net(NamedTuple):
    """A model, its learning rate, and the further ones that ordinary training is tuned over."""

    model: str
    lr: str
    rates: str


# By size, the net with batch normalisation and the one without.
NETS = {
    "resnet18": {
        "norm": Net("resnet18_cifar", "0.05", "0.0125,0.1,0.2"),
        "no-norm": Net("resnet18_cifar_wobn", "0.01", "0.0025,0.02,0.04"),
    },
    "resnet20": {
        "norm": Net("resnet20", "0.1", "0.025,0.2,0.4"),
        "no-norm": Net("resnet20_wobn", "0.02", "0.005,0.04,0.08"),
    },
    "resnet8": {
        "norm": Net("resnet8_narrow", "0.1", "0.025,0.2,0.4"),
        "no-norm": Net("resnet8_narrow_wobn", "0.02", "0.005,0.04,0.08"),
    },
}
STUDIES = ("norm", "no-norm")
RECIPE = (
    *("--batch-size", "256", "--momentum", "0.9", "--weight-decay", "5e-4", "--sched", "cosine"),
    *("--warmup-epochs", "1", "--cooldown-epochs", "0", "--checkpoint-hist", "1"),
    *("--amp-dtype", "bfloat16", "--channels-last", "--log-interval", "1000"),
    "--no-cudnn-benchmark",  # the timing takes seconds of every worker's first run
)
ALPHAS = ("1", "0.5", "0.25", "0.1")
MOST_SEEDS = 40
_STOPPING_S = 15.0  # of the time, for workers to end and for the reports
_MARGIN = 0.9  # of what is left: runs that share a GPU are not equally fast


def main(argv: Sequence[str] | None = None) -> None:
    started = time.monotonic()
    args = _parser().parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    until = started + args.seconds - _STOPPING_S
    spawn = multiprocessing.get_context("spawn")
    lock = spawn.Lock()
    children = [spawn.Process(target=study_net, args=(name, args, until, lock)) for name in STUDIES]
    for child in children:
        child.start()

    from softmax_gradient_tampering.errors import UserError
    from softmax_gradient_tampering.studies.report.printed import report_text

    for child in children:
        child.join(max(0.0, until - time.monotonic()))
    for child in children:
        child.terminate()  # one that is not at its end stops its runs, and lets go of them
    for child in children:
        child.join()
    for name in STUDIES:
        path = args.output / name
        print(f"\n{path}, {NETS[args.net][name].model}\n")
        try:
            print(report_text(path))
        except UserError as error:
            print(f"Nothing to report: {error}")
    print(f"\nTime:    {time.monotonic() - started:.0f} s\nPages:   sgt report {args.output}/NAME")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of the images or of the python batches")
    parser.add_argument("--seconds", type=float, default=600, help="time for all of it [600]")
    parser.add_argument("--output", type=Path, default=Path("output/gpu-study"))
    parser.add_argument("--jobs", type=int, help="runs at a time [12; without a GPU one a core]")
    parser.add_argument("--epochs", type=int, default=20, help="of every run [20]")
    parser.add_argument("--net", choices=NETS, default="resnet18", help="its size [resnet18]")
    return parser


def pack(root: Path, folder: Path) -> Path:
    """The folder of the python batches: the one given, or one that is made of its images once.

    Every run opens the set: twelve thousand files take seconds, and six take none.
    """
    import numpy as np

    from softmax_gradient_tampering.data.memory.cifar import load_cifar

    if any((at / "test_batch").is_file() for at in (root, root / "cifar-10-batches-py")):
        return root
    if (folder / "test_batch").is_file():
        return folder
    folder.mkdir(exist_ok=True)
    train, test = load_cifar(10, root, "train", "validation")
    for number, part in enumerate(np.array_split(np.arange(len(train.labels)), 5), 1):
        _write(folder / f"data_batch_{number}", train, part)
    _write(folder / "test_batch", test, np.arange(len(test.labels)))
    return folder


def _write(path: Path, data: "Images", indices: Any) -> None:
    pixels = data.images.numpy()[indices].reshape(len(indices), -1)
    labels = data.labels.numpy()[indices].tolist()
    path.write_bytes(pickle.dumps({b"data": pixels, b"labels": labels}, protocol=2))


def study_net(
    name: str, args: argparse.Namespace, until: float, lock: AbstractContextManager[Any]
) -> None:
    """Train one seed of a net's study, then as many as fit.

    Args:
        name: of the study.
        args: of the command line.
        until: when the time is over, by the monotonic clock.
        lock: held by the one that packs the images.
    """
    from softmax_gradient_tampering.studies.launch.run_study import end_on_interruption
    from softmax_gradient_tampering.studies.launch.runner import (
        open_runner,
        options_for_this_machine,
    )
    from softmax_gradient_tampering.studies.plan.request import parse_run
    from softmax_gradient_tampering.studies.results.study_folder import create_study, open_study

    with lock:
        data = pack(args.data, args.output / "data")
    jobs = max(1, (args.jobs or _usual_jobs()) // len(STUDIES))

    def plan(num_seeds: int) -> Any:
        return parse_run(words(name, args, data, jobs, num_seeds)).plan

    request = parse_run(words(name, args, data, jobs, 1))
    path, num_seeds = request.path, 1
    if (path / "plan.json").exists():  # a second call: how many was decided by the first
        num_seeds = len(open_study(path).plan.seeds)
    options = options_for_this_machine(request.machine)
    with end_on_interruption(path), open_runner(options) as runner:
        study = create_study(path, plan(num_seeds))
        train(study, runner)
        if num_seeds > 1:
            return
        num_seeds = seeds_that_fit(study, until - time.monotonic())
        print(f"{name}: seeds that fit: {num_seeds}", flush=True)
        if num_seeds > 1:
            # Planned anew and not added to: the clock has chosen the number, no result has.
            study.rewrite(plan(num_seeds))
            train(study, runner)


def train(study: "StudyFolder", runner: "Runner") -> None:
    """Train the runs of a study that are missing, and say what has failed."""
    from softmax_gradient_tampering.errors import UserError
    from softmax_gradient_tampering.studies.launch.driver import Driver
    from softmax_gradient_tampering.studies.launch.progress import StudyProgress

    progress = StudyProgress()
    try:
        driver = Driver(study, runner, progress)
        driver.run()
        driver.raise_for_failures()
    except UserError as error:
        print(error, flush=True)
    finally:
        progress.stop()


def words(name: str, args: argparse.Namespace, data: Path, jobs: int, num_seeds: int) -> list[str]:
    """The words of `sgt study run` for a net."""
    from softmax_gradient_tampering.studies.launch.devices import count_gpus

    net = NETS[args.net][name]
    machine = ["--jobs", str(jobs)]
    if count_gpus():
        machine = ["--gpus", "0", "--jobs-per-gpu", str(jobs), "--threads", "1"]
    return [
        *("--name", name, "--output", str(args.output), "--alphas", *ALPHAS),
        *("--seeds", str(num_seeds), "--tuning-seeds", "1", "--controls", "equivalent", "tuned"),
        *(
            "--grid",
            f"lr={net.lr},{net.rates}",
            *machine,
            "--",
            "--cifar",
            "10",
            "--data_dir",
            str(data),
        ),
        *("--model", net.model, "--lr", net.lr, "--epochs", str(args.epochs)),
        *("--eval-every", str(max(1, args.epochs // 4)), *RECIPE),
    ]


def seeds_that_fit(study: "StudyFolder", left: float) -> int:
    """How many seeds a study can have, from what its first one took.

    Args:
        study: with one seed, all runs done.
        left: seconds for the further ones.
    """
    begun = [path.stat().st_mtime for path in study.cells_path.glob("*/args.yaml")]
    written = [path.stat().st_mtime for path in study.cells_path.glob("*/*")]
    seconds = max(written) - min(begun)
    num_runs_a_seed = sum(arm.kind != "tuning" for arm in study.plan.arms)
    seconds_a_seed = max(seconds * num_runs_a_seed / len(begun), 1e-3)
    return min(MOST_SEEDS, 1 + max(0, int(_MARGIN * left / seconds_a_seed)))


def _usual_jobs() -> int:
    from softmax_gradient_tampering.studies.launch.devices import count_gpus

    return 12 if count_gpus() else len(os.sched_getaffinity(0))


if __name__ == "__main__":
    main()
