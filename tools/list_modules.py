"""Writes the list of rooms and files in docs/architecture.md from the modules' first lines.

usage: make architecture
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "softmax_gradient_tampering"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- files: made by tools/list_modules.py -->\n", "<!-- end of files -->\n"
COLUMN = 34
# From the top floor to the ground, as they stand on each other.
ROOMS = (
    "commands",
    "studies",
    "recipes",
    "training",
    "data",
    "models",
    "loss",
    "terminal",
    "files",
)
CODE = {".py": '"""', ".cpp": "//", ".h": "//"}


def list_modules() -> str:
    """The tree of the package, a line for each folder and file, as text of the page."""
    lines = [
        "src/softmax_gradient_tampering/",
        *_files(PACKAGE, 1, ("__init__.py", "__main__.py", "program.py", "cli.py")),
    ]
    for room in ROOMS:
        lines += _room(PACKAGE / room, 1)
    lines += _files(PACKAGE, 1, ("errors.py",))
    return "```text\n" + "\n".join(lines) + "\n```\n"


def first_line(path: Path) -> str:
    """What a file says that it is, in its first line."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0].rstrip(".")
    return text.partition("\n")[0].removeprefix("//").strip().rstrip(".")


def with_list(page: str) -> str:
    """The page with its list of files made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{list_modules()}\n{END}{after}"


def _room(folder: Path, depth: int) -> list[str]:
    lines = [_line(f"{folder.name}/", first_line(folder / "__init__.py"), depth)]
    rooms = sorted(path for path in folder.iterdir() if (path / "__init__.py").exists())
    names = sorted(path.name for path in folder.iterdir() if path.suffix in CODE)
    lines += _files(folder, depth + 1, [name for name in names if name != "__init__.py"])
    for room in rooms:
        lines += _room(room, depth + 1)
    for path in sorted(folder.glob("*/*")):
        if path.suffix in CODE and not (path.parent / "__init__.py").exists():
            lines.append(_line(str(path.relative_to(folder)), first_line(path), depth + 1))
    return lines


def _files(folder: Path, depth: int, names: list[str] | tuple[str, ...]) -> list[str]:
    return [_line(name, first_line(folder / name), depth) for name in names]


def _line(name: str, text: str, depth: int) -> str:
    return f"{'  ' * depth + name:{COLUMN}}  {text}"


if __name__ == "__main__":
    PAGE.write_text(with_list(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
