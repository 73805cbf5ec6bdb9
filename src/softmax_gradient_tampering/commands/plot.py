"""`sgt plot`: pictures of a run. `filter-norms`: every filter's norm over the epochs, by layer."""

from collections.abc import Sequence
from pathlib import Path

from softmax_gradient_tampering.errors import UserError
from softmax_gradient_tampering.terminal.parser import ArgumentParser

FORMATS = ("png", "svg", "pdf")


def main(argv: Sequence[str]) -> None:
    """Draw the picture and name its file."""
    parser = ArgumentParser(
        prog="sgt plot",
        description="Draw a run. filter-norms: the l2 norm of every convolution filter over the "
        "epochs, a panel a layer, of a run trained with --filter-norms.",
    )
    parser.add_argument("figure", choices=("filter-norms",), help="draw this figure")
    parser.add_argument("run", metavar="RUN", type=Path, help="of the run in this folder")
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help=f"write this picture; its name ends in .{', .'.join(FORMATS)} [RUN/filter_norms.png]",
    )
    args = parser.parse_args(argv)
    output = args.output or args.run / "filter_norms.png"
    kind = output.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise UserError(f"--output {output}: give a name that ends in .{', .'.join(FORMATS)}")
    if not (args.run / "filter_norms.npz").is_file():
        raise UserError(
            f"{args.run}: no filter_norms.npz in it; train with --filter-norms, and a model that "
            "has convolutions"
        )

    from softmax_gradient_tampering.files.whole import write_whole
    from softmax_gradient_tampering.studies.report.figures.filter_norms import draw_filter_norms
    from softmax_gradient_tampering.studies.results.run_files import read_filter_norms

    try:
        norms = read_filter_norms(args.run)
    except ValueError as error:
        raise UserError(f"{args.run}/filter_norms.npz: cannot be read ({error})") from error
    if len(norms) == 1:
        raise UserError(f"{args.run}: its model has no convolution, so no filters to draw")
    figure = draw_filter_norms(norms, args.run.name)
    write_whole(output, lambda file: figure.savefig(file, format=kind, dpi=150))
    print(f"Picture: {output}")
