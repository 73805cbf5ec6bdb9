"""The documentation runs, and what it points to exists."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from softmax_gradient_tampering.recipes.catalogue import published_figures, recipe_names
from softmax_gradient_tampering.studies.report.reproduction import HEAD, unreported_row
from softmax_gradient_tampering.training.config.arguments import FIELDS
from softmax_gradient_tampering.training.records.run_files import COLUMNS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "softmax_gradient_tampering"
RUNNABLE = [
    ROOT / "README.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts),
]
PAGES = [*RUNNABLE, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]

# What a fence may be marked as: a python block with a mark of its own would not be run.
LANGUAGES = {
    "",
    "python",
    "bash",
    "text",
    "yaml",
    "csv",
    "json",
    "bibtex",
    "{toctree}",
    "{eval-rst}",
}
# Flags of other programs and commands that the pages on training and data name.
OTHER_FLAGS = {
    *("config", "help", "version", "json"),
    *("standalone", "nnodes", "nproc-per-node", "max-restarts"),
    *("train", "val", "devkit", "classes", "train-images", "val-images"),
}

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(
    r"(?:src|tests|docs|examples|benchmarks|\.ci)/[\w./-]+|[\w-]+(?:/[\w-]+)*\.(?:py|md)"
)


class Block(NamedTuple):
    """A fenced block: its page, the line where its text begins, its language, its text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text[: found.start(2)].count("\n") + 1, found[1].strip(), found[2])
        for found in _FENCE.finditer(text)
    ]


def prose_of(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def run_block(block: Block) -> None:
    """Execute a block; a traceback names the line of the page."""
    code = compile("\n" * (block.line - 1) + block.text, str(block.page), "exec")
    with torch.random.fork_rng():
        exec(code, {"__name__": "__main__"})


def heading_anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    titles = re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# tests/integrations runs the page of frameworks, in a process that imports each of them once.
PYTHON_BLOCKS = [
    block
    for page in RUNNABLE
    if page.name != "integrations.md"
    for block in blocks_of(page)
    if block.language == "python"
]


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=str)
def test_python_blocks_run(block: Block) -> None:
    run_block(block)


def test_a_failing_block_fails_and_names_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```python\nx = 1\nassert x == 2\n```\n")
    (block,) = blocks_of(page)
    with pytest.raises(AssertionError) as caught:
        run_block(block)
    last = caught.traceback[-1]
    assert (Path(last.path), last.lineno + 1) == (page, 5)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_fences_are_closed_and_of_a_known_language(page: Path) -> None:
    fences = re.findall(r"^\s*```", page.read_text(encoding="utf-8"), re.MULTILINE)
    blocks = blocks_of(page)
    assert len(fences) == 2 * len(blocks)  # an indented or open fence is none of the blocks
    assert {block.language for block in blocks} <= LANGUAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(prose_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor and linked.suffix == ".md":
            assert anchor in heading_anchors(linked), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    for span in _SPAN.findall(prose_of(page)):
        if _PATH.fullmatch(span):
            places = (ROOT, page.parent, PACKAGE)
            assert any((place / span).exists() for place in places), f"{page.name} names {span}"


def names_of_tests(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_tests_exist(page: Path) -> None:
    for span in _SPAN.findall(prose_of(page)):
        if "::" in span and span.startswith("tests/"):
            path, name = span.split("::", 1)
            assert name in names_of_tests(ROOT / path), f"{page.name} names {span}"


def test_every_row_of_the_differences_is_there_and_says_what_holds_it() -> None:
    text = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")
    rows = [line.strip("| \n").split(" | ") for line in re.findall(r"^\| \d+ \|.*$", text, re.M)]
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        assert len(row) == 4
        assert "`tests/" in row[3] or row[3].startswith("no test"), f"row {row[0]}"


def test_the_page_on_reproduction_has_every_row_with_its_published_figures() -> None:
    text = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    *_, table = re.findall(r"^(?:\|.*\n)+", text, re.MULTILINE)
    head, _, *rows = table.splitlines()
    assert head == f"| {' | '.join(HEAD)} |"
    tampered = [name for name in recipe_names() if published_figures(name).alpha != 1]
    for name, row in zip(tampered, rows, strict=True):
        published, cells = unreported_row(name).split(" | ")[:4], row.split(" | ")
        assert cells[:4] == published
        assert row == unreported_row(name) or (len(cells) == len(HEAD) and "not run" not in row)


@pytest.mark.parametrize("name", ["training.md", "data.md"])
def test_the_pages_on_training_and_data_name_flags_as_they_are(name: str) -> None:
    page = ROOT / "docs" / name
    commands = "\n".join(block.text for block in blocks_of(page) if block.language == "bash")
    text = "\n".join([*_SPAN.findall(prose_of(page)), commands])
    flags = {flag.replace("_", "-") for flag in re.findall(r"(?<!\S)--([a-z][\w-]*)", text)}
    known = {name.replace("_", "-") for name in FIELDS} | OTHER_FLAGS
    assert {flag for flag in flags if not {flag, flag.removeprefix("no-")} & known} == set()


def test_the_training_page_names_the_columns_of_a_run_in_order() -> None:
    page = ROOT / "docs" / "training.md"
    rows = re.findall(r"^\| `(\w+)` \|", prose_of(page), re.MULTILINE)
    assert [row for row in rows if row in COLUMNS] == list(COLUMNS)


def test_the_messages_on_the_page_are_the_programs() -> None:
    page = (ROOT / "docs" / "reference" / "messages.md").read_text(encoding="utf-8")
    said = " ".join(
        node.value
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(messages) > 20
    assert [message for message in messages if message not in said] == []
