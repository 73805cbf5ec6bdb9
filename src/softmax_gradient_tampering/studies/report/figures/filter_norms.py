"""The picture of `sgt plot filter-norms`: every filter's norm over the epochs, by layer."""

import math

from matplotlib.figure import Figure

from softmax_gradient_tampering.studies.results.summary import FloatArray

_ZEROED_BELOW = 1e-6
_COLUMNS = 4


def draw_filter_norms(norms: dict[str, FloatArray], title: str) -> Figure:
    """A matplotlib figure: a panel a layer, a line a filter.

    Args:
        norms: `epochs` (E,), and by convolution the norms (E, filters).
        title: above the panels.
    """
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
