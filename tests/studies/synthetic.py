"""Synthetic test data: study folders of made-up runs in the formats of real ones.

Nothing here was trained. The numbers are drawn so that the figures look like figures and
that the statistics have something to find: logits grow as 1 / alpha, and an arm's accuracy
has an effect that the caller sets.
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from softmax_gradient_tampering.studies.plan.plan import Arm, Cell, Plan
from softmax_gradient_tampering.studies.plan.plan_file import to_json
from softmax_gradient_tampering.studies.results.predictions import Predictions
from softmax_gradient_tampering.training.config.arguments import to_mapping
from softmax_gradient_tampering.training.config.fields import NOT_RECORDED, Config
from softmax_gradient_tampering.training.records.run_files import (
    COLUMNS,
    Row,
    config_hash,
    rows_hash,
    run_hash,
)

ENVIRONMENT = {
    "python": "3.0.0",
    "platform": "synthetic test data, nothing was trained",
    "packages": {"torch": "0.0.0", "timm": "0.0.0"},
    "device": "none",
    "threads": 1,
    "git_commit": "0" * 40,
    "command": ["sgt", "train", "--model", "digits_mlp"],
}


@dataclass(frozen=True)
class FakeArm:
    """An arm of the plan, and by how many points its accuracy differs from the baseline's.

    One that `answers` a class predicts it for every sample.
    """

    name: str
    kind: str
    alpha: float = 1.0
    effect: float = 0.0
    alpha_end: float | None = None
    alpha_schedule: str = "constant"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    selected_from: Sequence[str] = ()
    answers: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The flags that differ from the study's."""
        settings = {"modify_softmax": self.alpha if self.is_tampered else 1.0, **self.overrides}
        if self.kind == "scheduled":
            settings |= {"alpha_schedule": self.alpha_schedule, "alpha_end": self.alpha_end}
        return settings

    @property
    def is_tampered(self) -> bool:
        return self.kind in ("tampered", "scheduled")

    def planned(self) -> Arm:
        """The arm as a plan has it."""
        selection = None
        if self.selected_from:
            table = [
                {"overrides": {"lr": rate}, "mean_top1": 90 + 10 * rate, "n": 10}
                for rate in (0.05, 0.1)
            ]
            metric = "eval_top1 on a split of the training set"
            selection = {"metric": metric, "table": table, "chosen": {"lr": 0.1}}
        return Arm(
            self.name,
            self.kind,
            self.alpha,
            self.alpha_end,
            self.alpha_schedule,
            self.settings,
            tuple(self.selected_from),
            selection,
        )


_SHARED: dict[str, Any] = {"model": "digits_mlp", "logit_stats": True}
BASELINE = FakeArm("baseline", "baseline")
ARMS = (
    BASELINE,
    FakeArm("alpha-0.5", "tampered", 0.5, effect=0.2),
    FakeArm("alpha-0.25", "tampered", 0.25, effect=1.5),
    FakeArm("alpha-0.1", "tampered", 0.1, effect=-1.2),
    FakeArm("equivalent-0.25", "equivalent", 0.25, effect=1.5, overrides={"lr": 0.2}),
    FakeArm("lr-0.05", "tuning", overrides={"lr": 0.05}),
    FakeArm("lr-0.1", "tuning", overrides={"lr": 0.1}),
    FakeArm(
        "tuned", "tuned", effect=1.4, overrides={"lr": 0.1}, selected_from=("lr-0.05", "lr-0.1")
    ),
    FakeArm("linear", "scheduled", 0.25, 0.8, alpha_end=1.0, alpha_schedule="linear"),
)


@dataclass(frozen=True)
class Size:
    """How much there is of a synthetic run."""

    num_epochs: int = 12
    num_samples: int = 400
    num_classes: int = 6
    num_filters: int = 0
    class_names: tuple[str, ...] = ()
    class_samples: tuple[int, ...] = ()  # else all classes have as many

    @property
    def labels(self) -> Any:
        """Of all samples."""
        if self.class_samples:
            return np.repeat(np.arange(len(self.class_samples)), self.class_samples)
        return np.arange(self.num_samples) % self.num_classes


def write_study(
    folder: Path,
    arms: Sequence[FakeArm] = ARMS,
    seeds: Sequence[int] = range(10),
    size: Size = Size(),
    name: str = "synthetic",
) -> Path:
    """Write a study whose cells are all finished."""
    plan = Plan(
        name=name,
        command=("sgt", "study", "run", "--name", name, "--alphas", "1", "0.25"),
        arms=tuple(arm.planned() for arm in arms),
        seeds=tuple(seeds),
        tuning_seeds=tuple(seeds),
        config=to_mapping(Config(**_SHARED, epochs=size.num_epochs), (*NOT_RECORDED, "seed")),
        # Equal settings would share a cell; made-up runs of two arms differ in any case.
        cells=tuple(
            Cell(config_hash({"arm": arm.name, "seed": seed}), arm.name, seed)
            for arm in arms
            for seed in seeds
        ),
    )
    by_name = {arm.name: arm for arm in arms}
    for cell in plan.cells:
        path = folder / "cells" / cell.id
        path.mkdir(parents=True)
        write_run(path, by_name[cell.arm], cell.seed, size)
    (folder / "plan.json").write_text(to_json(plan))
    return folder


def cell_folder(study: Path, arm: str, seed: int) -> Path:
    """The folder of a study's cell."""
    cells = json.loads((study / "plan.json").read_text())["cells"]
    (name,) = (cell["id"] for cell in cells if (cell["arm"], cell["seed"]) == (arm, seed))
    return study / "cells" / name


def write_run(folder: Path, arm: FakeArm, seed: int, size: Size = Size()) -> Path:
    """Write a finished run folder."""
    config = Config(**_SHARED, seed=seed, epochs=size.num_epochs, **arm.settings)
    args = to_mapping(config, leave_out=NOT_RECORDED)
    logits, labels = fake_predictions(arm, seed, size)
    rows = fake_rows(arm, seed, size, logits, labels)
    # Plainly, not whole and synced as a run does it: a thousand of them are written.
    text = yaml.dump(args, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))
    (folder / "args.yaml").write_text(text)
    with (folder / "summary.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
    np.savez(folder / "predictions.npz", logits=logits, labels=labels)
    if size.num_filters:
        np.savez(folder / "filter_norms.npz", **fake_filter_norms(arm, seed, size))
    result = {
        "status": "finished",
        "epochs": size.num_epochs,
        "final": rows[-1],
        "measurements": {},
        "classes": recorded_classes(logits, labels, size),
        "config_hash": run_hash(args),
        "summary_hash": rows_hash(rows),
        "seconds": 1.0 + 0.01 * seed,
        "resumes": 0,
    }
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def recorded_classes(logits: Any, labels: Any, size: Size) -> dict[str, Any] | None:
    """What a run records of its classes; None of a run of a version that did not."""
    if not size.class_names:
        return None
    return Predictions(logits, labels).count_classes().named(size.class_names).recorded()


def fake_predictions(arm: FakeArm, seed: int, size: Size) -> tuple[Any, Any]:
    """Logits that are right in about 92 % and the arm's effect, and grow as 1 / alpha."""
    scale = arm.alpha if arm.is_tampered else 1.0
    generator = np.random.default_rng(seed)  # the same samples and noise at every arm
    labels = size.labels
    num_samples, num_classes = len(labels), labels.max() + 1
    z = generator.normal(0, 1.4, (num_samples, num_classes))
    z[np.arange(num_samples), labels] += 4.5
    difficulty = generator.permutation(num_samples) / num_samples
    # What the arms of one seed share, and what one setting has of its own.
    shared = np.random.default_rng([seed, 3]).normal(0, 0.006)
    own = np.random.default_rng([seed, int(1000 * arm.alpha), int(100 * abs(arm.effect))])
    share = 0.92 + shared + arm.effect / 100 + own.normal(0, 0.003 * (arm.effect != 0))
    top = z.argmax(1)
    swap = np.where(top == labels, (labels + 1) % num_classes, labels)
    wrong = difficulty > share
    rows = np.flatnonzero(np.where(wrong, top == labels, top != labels))
    z[rows, top[rows]], z[rows, swap[rows]] = z[rows, swap[rows]], z[rows, top[rows]]
    if arm.answers is not None:
        z[:, arm.answers] = z.max(1) + 1
    return (z / scale).astype(np.float32), labels.astype(np.int64)


def fake_rows(arm: FakeArm, seed: int, size: Size, logits: Any, labels: Any) -> list[Row]:
    """A summary.csv that ends where the predictions do."""
    generator = np.random.default_rng([seed, 1])
    top1 = 100 * float((logits.argmax(1) == labels).mean())
    norm = float(np.linalg.norm(logits, axis=1).mean())
    rows = []
    for epoch in range(1, size.num_epochs + 1):
        progress = 1 - math.exp(-4 * epoch / size.num_epochs)
        progress /= 1 - math.exp(-4)
        noise = 0.0 if epoch == size.num_epochs else float(generator.normal(0, 0.4))
        row: Row = dict.fromkeys(COLUMNS)
        row |= {
            "epoch": epoch,
            "train_loss": 2.2 * (1 - progress) + 0.02 + 0.002 * norm,
            "train_acc": min(100.0, 15 + 83 * progress + noise + 0.3 * arm.effect),
            "eval_loss": 2.2 * (1 - progress) + 0.2 + 0.01 * norm,
            "eval_top1": 15 + (top1 - 15) * progress + noise if noise else top1,
            "eval_top5": 99.0,
            "lr": 0.05 * (1 - epoch / size.num_epochs),
            "images_per_s": 40_000 + 100 * float(generator.normal()),
            "logit_norm": norm * (0.2 + 0.8 * progress),
            "logit_mean": 0.1,
            "logit_max": 0.8 * norm,
            "logit_var": norm**2 / size.num_classes,
            "skipped_steps": 0,
            "zeroed_filters": round(4 * progress / arm.alpha) if size.num_filters else None,
        }
        rows.append(row)
    return rows


def fake_filter_norms(arm: FakeArm, seed: int, size: Size) -> dict[str, Any]:
    """Filters whose norms fall, the faster the smaller alpha is."""
    generator = np.random.default_rng([seed, 2])
    epochs = np.arange(1, size.num_epochs + 1)
    decay = np.exp(-epochs[:, None] / size.num_epochs * generator.uniform(0, 4, size.num_filters))
    return {"epochs": epochs, **{f"layer{n}": decay / n * arm.alpha**0.3 for n in (1, 2, 3)}}
