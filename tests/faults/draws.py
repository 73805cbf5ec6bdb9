"""What `make chaos` draws by seed: configurations of a run, and faults of a start of it."""

import errno
import random
import signal
from typing import Any

from tests.faults.disturbed import CALLS

Fault = dict[str, Any]
ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT)
# Moments of a run, and how often each comes in it, about.
MOMENTS = {
    "set-up": 1,
    "load": 1,
    "forward": 20,
    "update": 16,
    "evaluation": 5,
    "save": 6,
    "copy": 3,
    "link": 4,
    "rename": 3,
    "write": 9,
    "summary": 3,
    "result": 1,
}

# Each with its share of the runs; of several values one is drawn.
Options = tuple[tuple[float, tuple[str, ...]], ...]
EVERYWHERE: Options = (
    (0.8, tuple(f"--modify-softmax {alpha}" for alpha in (0.05, 0.25, 0.6, 0.92))),
    (0.7, tuple(f"--recovery-interval {steps}" for steps in (1, 2, 3, 5))),
    (0.3, ("--checkpoint-hist 0", "--checkpoint-hist 1", "--checkpoint-hist 3")),
    (0.3, ("--eval-every 2",)),
    (0.3, ("--eval-metric loss", "--eval-metric top5")),
    (0.3, ("--smoothing 0.1",)),
    (0.3, ("--mixup 0.3", "--cutmix 1", "--mixup 0.4 --cutmix 0.7 --mixup-mode elem")),
    (0.2, ("--reprob 0.5", "--reprob 0.3 --remode pixel")),
    (0.3, ("--model-ema --model-ema-decay 0.8", "--model-ema --model-ema-force-cpu")),
    (0.3, ("--grad-accum-steps 2", "--grad-accum-steps 3")),
    (0.3, ("--amp",)),
    (
        0.3,
        ("--clip-grad 1", "--clip-grad 0.1 --clip-mode value", "--clip-grad 0.02 --clip-mode agc"),
    ),
    (0.3, ("--drop 0.3",)),
    (0.2, ("--filter-norms",)),
    (0.2, ("--logit-stats",)),
    (0.2, ("--save-predictions",)),
    (0.1, ("--on-nonfinite skip",)),
    (0.1, ("--log tensorboard",)),
    (0.1, ("--no-channels-last",)),
)
OPTIMIZERS = (
    *("sgd", "momentum", "adamw", "adam", "nadam", "radam", "lamb", "lars", "lion", "adopt"),
    *("rmsproptf", "adafactor", "adabelief", "adan", "madgrad", "novograd", "lookahead_adamw"),
    "adahessian",
)
SCHEDULES = (
    *("cosine", "tanh --lr-cycle-limit 2", "constant", "poly", "plateau --patience-epochs 0"),
    *("step --decay-epochs 1", "cosine --warmup-epochs 1", "cosine --sched-order published"),
    *("cosine --lr-noise 0.1 0.9", "cosine --cooldown-epochs 1"),
)
DIGITS: Options = (
    (1, ("-b 224", "-b 300", "-b 150")),
    (0.3, ("--model digits_cnn", "--model digits_mlp_plain")),
    (0.2, ("--holdout 0.3",)),
)
PHOTOS: Options = (
    (1, ("--workers 0", "--workers 1", "--workers 2", "--workers 2")),
    (1, ("-b 4", "-b 3")),
    (0.3, ("--aa rand-m5-mstd0.5",)),
    (0.2, ("--on-bad-image skip",)),
)


class Configuration:
    """What is trained: the words of a command line, and by how many processes."""

    def __init__(self, draw: random.Random) -> None:
        self.processes = draw.choice((1, 1, 1, 1, 2))
        self.epochs = draw.choice((2, 3))
        self.has_photos = draw.random() < 0.4
        words = f"--seed {draw.randrange(2**31)} --epochs {self.epochs} --output out"
        if self.has_photos:
            words += " --data-dir photos --model resnet20 --img-size 32"
        for share, values in EVERYWHERE + (PHOTOS if self.has_photos else DIGITS):
            if draw.random() < share:
                words += f" {draw.choice(values)}"
        if draw.random() < 0.6:
            names = [name for name in OPTIMIZERS if self.processes == 1 or name != "adahessian"]
            words += f" --opt {draw.choice(names)} --lr {draw.choice((0.001, 0.01))}"
        words += f" --sched {draw.choice(SCHEDULES)}" if draw.random() < 0.6 else ""
        has_alpha = "--modify-softmax" in words
        if has_alpha and draw.random() < 0.2:
            words += f" --loss-kernel {draw.choice(('blocks', 'reference'))}"
        if has_alpha and draw.random() < 0.3:
            words += f" --alpha-schedule {draw.choice(('linear', 'cosine'))} --alpha-end 0.3"
        self.words = words.split()
        self.has_workers = self.has_photos and "--workers 0" not in words


def draw_fault(draw: random.Random, configuration: Configuration, num_steps: int) -> Fault:
    """A fault of one start of a run of so many optimizer steps."""
    kinds = ["kill", "kill", "signal", "disk", "size", "memory", "stop"]
    # At any moment, one of several may be hit before they have met, and is waited for.
    kinds += ["timer"] if configuration.processes == 1 else []
    kinds += ["worker"] * 3 if configuration.has_workers else []
    kind = draw.choice(kinds)
    fault: Fault = {"kind": kind, "rank": draw.randrange(configuration.processes)}
    if kind in ("kill", "signal", "size"):
        fault |= draw_moment(draw, tuple(MOMENTS))
    if kind == "stop":
        fault = {"kind": "none", "max_steps": draw.randrange(1, num_steps)}
    elif kind == "kill":
        fault |= {"kind": "signal", "number": int(signal.SIGKILL)}
    elif kind == "signal":
        fault |= {"number": int(draw.choice(SIGNALS))}
    elif kind == "timer":
        number = draw.choice((signal.SIGKILL, *SIGNALS))
        fault |= {"seconds": 3 * draw.random() ** 2, "number": int(number)}
    elif kind == "disk":
        call = draw.choice(CALLS)
        passes = few(draw, 4 if call in ("link", "unlink") else 25)
        fault |= {"call": call, "passes": passes, "code": draw.choice(ERRORS)}
        fault |= {"stays": draw.random() < 0.7}
    elif kind == "size":
        fault |= {"num_bytes": int(10 ** draw.uniform(3.5, 5.5))}
    elif kind == "memory":
        fault |= draw_moment(draw, ("set-up", "forward", "update", "evaluation"))
    else:
        fault |= {"passes": few(draw, 8), "stops_first": draw.random() < 0.5}
    return fault


def draw_moment(draw: random.Random, names: tuple[str, ...]) -> Fault:
    """A moment of a run, and how often it passes unharmed."""
    name = draw.choice(names)
    return {"moment": name, "passes": few(draw, MOMENTS[name])}


def few(draw: random.Random, most: int) -> int:
    """Below `most`, and small ones more often: a resumed run is a short one."""
    return int(most * draw.random() ** 2)
