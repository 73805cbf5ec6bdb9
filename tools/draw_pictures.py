"""Draws the pictures of the documentation from the code itself and from committed results.

usage: make pictures
"""

import csv
import math
from collections.abc import Iterable
from pathlib import Path

import torch
from list_modules import PACKAGE, ROOMS, first_line
from svg_picture import Picture

from softmax_gradient_tampering import power_transform
from softmax_gradient_tampering.loss.equivalence import factors
from softmax_gradient_tampering.studies.analysis.statistics import mean_interval
from softmax_gradient_tampering.studies.analysis.verdict import compare, judge

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
DEMO = ROOT / "docs" / "results" / "2026-11-25-demo-digits"
ALPHAS = (1.0, 0.5, 0.25, 0.1)
COLOURS = ("a", "c", "b", "d")
MARGIN = 0.5


def pictures() -> dict[str, str]:
    """The pictures by their files' names."""
    return {
        "probabilities.svg": probabilities(),
        "equivalence.svg": equivalence(),
        "life-of-a-run.svg": life_of_a_run(),
        "rooms.svg": rooms(),
        "verdict.svg": verdict(),
    }


def probabilities() -> str:
    """p and p' of one sample at four alphas, and the gradient of its logits."""
    z = torch.tensor([4.0, 2.5, 1.0, 0.0, -1.0], dtype=torch.float64)
    label = 0
    picture = Picture(720, 330, "Tampered probabilities and gradients of one sample at four alphas")
    picture.words(24, 32, "One sample, five classes, the first is the label", size=16)
    picture.words(24, 54, "logits z = " + ", ".join(f"{x:g}" for x in z.tolist()), "soft", 13)
    for panel, alpha in enumerate(ALPHAS):
        x, colour = 24 + 172 * panel, COLOURS[panel]
        name = "alpha 1, ordinary: p" if alpha == 1 else f"alpha {alpha:g}: p'"
        picture.words(x, 88, name, colour, 13)
        p = power_transform(z.softmax(0), alpha)
        gradient = p - torch.nn.functional.one_hot(torch.tensor(label), len(z))
        for index, share in enumerate(p.tolist()):
            left = x + 30 * index
            picture.bar(left, 200 - 100 * share, 22, 100 * share, colour, f"{share:.3f}")
            picture.words(left + 11, 216, f"{share:.2f}", "soft", 11, at="middle")
            slope = float(gradient[index])
            height = 60 * abs(slope)
            top = 262 if slope < 0 else 262 - height
            picture.bar(left, top, 22, height, colour, f"gradient {slope:+.3f}")
        picture.line(x, 200, x + 142, 200)
        picture.line(x, 262, x + 142, 262)
        picture.words(x, 318, f"gradient at the label {float(gradient[label]):+.2f}", "soft", 12)
    return picture.text()


def equivalence() -> str:
    """Which ordinary training follows a tampered one, at alpha 1/4."""
    alpha = 0.25
    picture = Picture(720, 360, "What the equivalent ordinary training re-sets in head and body")
    picture.words(24, 32, f"Tampering at alpha {alpha:g} is ordinary training, re-set", size=16)
    left, right = 24, 388
    for x, title in ((left, "tampered"), (right, "ordinary, re-set: the same steps")):
        picture.words(x, 66, title, "a" if x == left else "c", 14)
        picture.box(x, 80, 140, 70, "body", "every layer before")
        picture.arrow(x + 140, 115, x + 168, 115)
        picture.box(x + 168, 80, 140, 70, "head", "last linear layer")
    picture.words(left, 176, "learning rate lr, weight decay wd, AdamW's eps", "soft", 13)
    picture.words(left, 196, "loss: cross-entropy, gradient p' - q", "soft", 13)
    picture.words(right, 176, "loss: cross-entropy, gradient p - q", "soft", 13)
    picture.words(right, 196, f"logits: {alpha:g} times the tampered ones", "soft", 13)
    for row, optimizer in enumerate(("sgd", "adamw")):
        head, body = factors(optimizer, alpha)
        y = 236 + 56 * row
        picture.words(left, y, {"sgd": "SGD", "adamw": "AdamW"}[optimizer], size=14)
        for x, part in ((right, body), (right + 168, head)):
            rates = f"lr x {part.lr:g}, wd x {part.weight_decay:g}"
            picture.words(x, y, rates, size=13)
            eps = f"eps x {part.eps:g}" if optimizer == "adamw" else ""
            picture.words(x, y + 18, eps, size=13)
        picture.line(left, y + 28, 696, y + 28, 0.5)
    picture.words(left, 344, f"initial weights of the head x {alpha:g}", "soft", 13)
    return picture.text()


def life_of_a_run() -> str:
    picture = Picture(720, 300, "The life of a run: from its command to its result")
    picture.words(24, 32, "A run, whatever happens to it", size=16)
    steps = (
        ("check", "flags, data,", "model, disk"),
        ("train", "step after step,", "recovery points"),
        ("evaluate", "one row of", "summary.csv"),
        ("checkpoint", "last.pth.tar,", "whole or not at all"),
    )
    for index, lines in enumerate(steps):
        x = 24 + 172 * index
        picture.box(x, 60, 146, 76, *lines)
        if index:
            picture.arrow(x - 26, 98, x, 98)
    picture.line(613, 136, 613, 160)
    picture.line(613, 160, 269, 160)
    picture.arrow(269, 160, 269, 136)
    picture.words(441, 176, "next epoch", "soft", 12, at="middle")
    endings = (
        ("signal, preemption", "recovery checkpoint,", "exit code 130 or 143"),
        ("killed, disk full", "newest whole", "checkpoint stays"),
        ("loss not finite", "nonfinite.json says", "where; exit code 2"),
        ("done", "result.json,", "exit code 0"),
    )
    for index, lines in enumerate(endings):
        picture.box(24 + 172 * index, 204, 146, 76, *lines)
    picture.arrow(97, 204, 97, 136)
    picture.words(105, 190, "--resume auto goes on, bit by bit", "soft", 12)
    return picture.text()


def rooms() -> str:
    """The rooms of the package as floors: an upper one may import a lower one."""
    height = 62 + 40 * len(ROOMS)
    picture = Picture(720, height, "The rooms of the package, each standing on those below it")
    picture.words(24, 32, "Rooms: each may use those below it, never those above", size=16)
    for floor, room in enumerate(ROOMS):
        y = 48 + 40 * floor
        picture.bar(24, y, 672, 34, "pale" if floor % 2 else "band", room)
        picture.words(36, y + 22, f"{room}/", "mono ink", 14)
        sentence = first_line(PACKAGE / room / "__init__.py")
        picture.words(130, y + 22, _shortened(sentence, 94), "soft", 12)
    return picture.text()


def verdict() -> str:
    """The anatomy of a verdict, of the demo's alpha 1/4 against ordinary training."""
    accuracies = _accuracies(("alpha-1", "alpha-0.25"))
    baseline, arm = accuracies["alpha-1"], accuracies["alpha-0.25"]
    pairs = sorted(set(baseline) & set(arm))
    differences = [arm[seed] - baseline[seed] for seed in pairs]
    interval = mean_interval(differences)
    low = min(*differences, -MARGIN) - 0.3
    high = max(*differences, MARGIN) + 0.3

    def at(value: float) -> float:
        return 40 + 640 * (value - low) / (high - low)

    picture = Picture(720, 300, "The anatomy of a verdict: pairs, mean, interval and margin")
    picture.words(24, 32, "The demo: alpha 0.25 less alpha 1, points of test accuracy", size=16)
    picture.bar(at(-MARGIN), 56, at(MARGIN) - at(-MARGIN), 156, "band", "margin")
    picture.words(at(0), 50, "margin: too small to matter", "soft", 12, at="middle")
    picture.line(at(0), 56, at(0), 212, 1)
    for index, (seed, difference) in enumerate(zip(pairs, differences, strict=True)):
        picture.dot(at(difference), 72 + 10 * index, "a", f"seed {seed}: {difference:+.2f}")
    picture.words(696, 150, "each dot: one seed,", "a", 12, at="end")
    picture.words(696, 166, "trained both ways", "a", 12, at="end")
    picture.bar(at(interval.low), 190, at(interval.high) - at(interval.low), 6, "b", "interval")
    picture.dot(at(interval.mean), 193, "b", f"mean {interval.mean:+.2f}", 6)
    words = f"mean {interval.mean:+.2f}, 95 % interval {interval.low:+.2f} to {interval.high:+.2f}"
    picture.words(at(interval.mean), 232, words, "b", 13, at="middle")
    for tick in range(math.ceil(low), math.floor(high) + 1):
        picture.words(at(tick), 254, f"{tick:+d}" if tick else "0", "soft", 12, at="middle")
    found = judge({"alpha-0.25": compare(arm, baseline)}, MARGIN)["alpha-0.25"]
    picture.words(24, 284, f"verdict of this pair of arms alone: {found.verdict}", size=14)
    return picture.text()


def _accuracies(arms: Iterable[str]) -> dict[str, dict[int, float]]:
    """Test accuracy by arm and seed, of the committed demo."""
    found: dict[str, dict[int, float]] = {arm: {} for arm in arms}
    with (DEMO / "report-runs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["arm"] in found:
                found[row["arm"]][int(row["seed"])] = float(row["eval_top1"])
    return found


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: text.rindex(" ", 0, length)] + " ..."


def main() -> None:
    for name, text in pictures().items():
        (IMAGES / name).write_text(text, encoding="utf-8")
        print(IMAGES / name)


if __name__ == "__main__":
    main()
