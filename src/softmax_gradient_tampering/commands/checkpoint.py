"""`sgt checkpoint`: what is in a checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from softmax_gradient_tampering.errors import as_printable
from softmax_gradient_tampering.terminal.parser import ArgumentParser


def main(argv: Sequence[str]) -> None:
    """Show the checkpoint named."""
    parser = ArgumentParser(
        prog="sgt checkpoint",
        description="Show what is in a checkpoint: this program's, a published one, or timm's. "
        "Nothing in it is executed.",
    )
    parser.add_argument("action", choices=("show",), help="print what is in the file")
    parser.add_argument("file", metavar="FILE", type=Path, help="a checkpoint, .pth.tar or .pth")
    parser.add_argument(
        "--args", action="store_true", help="print the settings of its run too, as YAML [off]"
    )
    words = parser.parse_args(argv)

    from softmax_gradient_tampering.training.checkpoint.description import describe_checkpoint

    facts, settings = describe_checkpoint(words.file)
    width = max(map(len, facts))
    print(as_printable(str(words.file)))
    for name, value in facts.items():
        print(f"  {name:{width}}  {as_printable(value)}")
    if words.args:
        print(f"settings:\n{settings}", end="")
