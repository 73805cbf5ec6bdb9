"""The documentation as a site: built strictly, whole, and showing itself without the network."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytest.importorskip("sphinx", reason="the docs extra is not installed")
# What a page loads by itself; a link that is followed only when it is clicked is none of it.
LOADED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"(?:https?:)?//|<link\b[^>]*\bhref=\"(?:https?:)?//"
    r"|@import|url\(['\"]?(?:https?:)?//"
)


def build(source: Path, site: Path, config: Path) -> str:
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "-q"]
    command += ["-c", str(config), "-d", str(site / ".cache"), str(source), str(site / "site")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build(ROOT, folder, ROOT / "docs")
    return folder / "site"


def test_every_page_is_there_and_can_be_found(site: Path) -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"]
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    for page in pages:
        name = page.relative_to(ROOT).with_suffix("")
        assert (site / f"{name}.html").exists()
        assert f'"{name}"' in index
    assert "docs/index.html" in (site / "index.html").read_text(encoding="utf-8")


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        if "_downloads" not in path.parts:
            found = LOADED.search(path.read_text(encoding="utf-8"))
            assert found is None, f"{path.name}: {found}"


def test_a_lost_link_fails_the_build(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "docs").mkdir(parents=True)
    (source / "docs" / "index.md").write_text("# Page\n\n[there](missing.md)\n")
    with pytest.raises(AssertionError, match=r"missing\.md"):
        build(source, tmp_path / "out", ROOT / "docs")


def test_equations_are_mathml(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "docs").mkdir(parents=True)
    (source / "docs" / "index.md").write_text("# Page\n\nIt is $p^\\alpha$, and\n\n$$\nx < 1\n$$\n")
    build(source, tmp_path / "out", ROOT / "docs")
    page = (tmp_path / "out" / "site" / "docs" / "index.html").read_text(encoding="utf-8")
    assert page.count("<math ") == 2
    assert "<msup>" in page


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse's help differs by version")
def test_the_reference_is_what_the_commands_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    write_reference = importlib.import_module("write_reference")
    for path, text in write_reference.pages().items():
        assert path.read_text(encoding="utf-8") == text, "run `make reference`"


def test_the_pictures_are_what_the_code_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    draw_pictures = importlib.import_module("draw_pictures")
    for name, text in draw_pictures.pictures().items():
        committed = (ROOT / "docs" / "images" / name).read_text(encoding="utf-8")
        assert committed == text, "run `make pictures`"
