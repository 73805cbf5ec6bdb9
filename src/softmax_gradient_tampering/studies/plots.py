"""Pictures of runs, with matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from softmax_gradient_tampering.studies.statistics import mean_interval
from softmax_gradient_tampering.training.records import Row

# Okabe and Ito's colours, told apart with any colour vision.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")

PANELS = (
    ("train_loss", "training loss (nats)", "log"),
    ("eval_loss", "test loss (nats)", "log"),
    ("eval_top1", "test accuracy (%)", "linear"),
    ("logit_norm", "mean logit norm", "log"),
)


def plot_curves(path: Path, arms: Mapping[str, Sequence[Sequence[Row]]], title: str) -> None:
    """Draw every arm's curves over the epochs: means over runs, bands of 95 % intervals.

    Args:
        path: of the picture; its ending sets the format.
        arms: by name, the rows of summary.csv of every run.
        title: of the picture.
    """
    figure, axes = plt.subplots(1, len(PANELS), figsize=(14, 3.4), layout="constrained")
    for axis, (column, label, scale) in zip(axes, PANELS, strict=True):
        for (name, runs), color in zip(arms.items(), COLORS, strict=False):
            epochs = [row["epoch"] for row in runs[0]]
            by_epoch = zip(*([float(row[column] or 0) for row in run] for run in runs), strict=True)
            intervals = [mean_interval(values) for values in by_epoch]
            means = [interval.mean for interval in intervals]
            axis.plot(epochs, means, color=color, label=name)
            if len(runs) > 1:
                low, high = zip(*((m - h, m + h) for m, h in intervals), strict=True)
                floor = 0.5 * min(means) if scale == "log" else min(low)
                axis.fill_between(epochs, [max(v, floor) for v in low], high, color=color,
                                  alpha=0.2, linewidth=0)  # fmt: skip
        axis.set(xlabel="epoch", title=label, yscale=scale)
        axis.grid(alpha=0.3, linewidth=0.5)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)
