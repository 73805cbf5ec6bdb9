"""`sgt plot`: pictures of a run. `filter-norms`: every filter's norm over the epochs, by layer."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.files.whole import write_whole
from softmax_gradient_tampering.studies.results.recorded_run import FloatArray, read_filter_norms
from softmax_gradient_tampering.terminal.parser import ArgumentParser

FORMATS = ("png", "svg", "pdf")
_ZEROED_BELOW = 1e-6
_COLUMNS = 4


def main(argv: Sequence[str]) -> None:
    """Draw the picture and name its file."""
    parser = ArgumentParser(
        prog="sgt plot",
        description="Draw a run. filter-norms: the l2 norm of every convolution filter over the "
        "epochs, a panel a layer, of a run trained with --filter-norms.",
    )
    parser.add_argument("figure", choices=("filter-norms",), help="what to draw")
    parser.add_argument("run", metavar="RUN", type=Path, help="the run folder")
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help=f"the picture, {', '.join(FORMATS)} by its name (RUN/filter_norms.png)",
    )
    args = parser.parse_args(argv)
    output = args.output or args.run / "filter_norms.png"
    kind = output.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise UserError(f"--output {output}: give a name that ends in .{', .'.join(FORMATS)}")
    if not (args.run / "filter_norms.npz").is_file():
        raise UserError(f"{args.run}: no filter_norms.npz in it; train with --filter-norms")
    try:
        norms = read_filter_norms(args.run)
    except ValueError as error:
        raise UserError(f"{args.run}/filter_norms.npz: cannot be read ({error})") from error
    if len(norms) == 1:
        raise UserError(f"{args.run}: its model has no convolution, so no filters to draw")
    figure = draw_filter_norms(norms, args.run.name)
    write_whole(output, lambda file: figure.savefig(file, format=kind, dpi=150))
    print(f"Picture: {output}")


def draw_filter_norms(norms: dict[str, FloatArray], title: str) -> Any:
    """A matplotlib figure: a panel a layer, a line a filter.

    Args:
        norms: `epochs` (E,), and by convolution the norms (E, filters).
        title: above the panels.
    """
    from matplotlib.figure import Figure

    epochs, norms = norms["epochs"], {name: n for name, n in norms.items() if name != "epochs"}
    columns = min(_COLUMNS, len(norms))
    rows = math.ceil(len(norms) / columns)
    figure = Figure(figsize=(3 * columns, 2.2 * rows + 0.6), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
    for panel, (layer, values) in zip(panels, norms.items(), strict=False):
        zeroed = int((values[-1] < _ZEROED_BELOW).sum())
        shown = values.clip(_ZEROED_BELOW / 10, None)  # a logarithmic axis has no place for 0
        marker = "." if len(epochs) == 1 else None
        panel.plot(epochs, shown, color="#0072b2", alpha=0.35, linewidth=0.6, marker=marker)
        panel.axhline(_ZEROED_BELOW, color="#d55e00", linewidth=0.8, linestyle="--")
        panel.set_yscale("log")
        panel.set_title(f"{layer}: {zeroed} of {values.shape[1]} zeroed", fontsize=8)
        panel.tick_params(labelsize=7)
    for panel in panels[len(norms) :]:
        panel.set_axis_off()
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel("l2 norm of a filter", fontsize=9)
    figure.suptitle(f"{title}: filter norms; below the dashed line a filter is zeroed", fontsize=9)
    return figure
