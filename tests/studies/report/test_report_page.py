"""The page in a browser: no request, no error, nothing too wide, the CSV files' numbers."""

from pathlib import Path

import pytest

from softmax_gradient_tampering.studies.report.report import write_report
from tests.studies.report.browser import Page, find_chromium
from tests.studies.report.test_report import as_shown, sources
from tests.studies.synthetic import Size, write_study

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium: apt-get install chromium"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    size = Size(num_epochs=5, num_samples=200, num_classes=4, num_filters=3)
    return write_report(write_study(tmp_path_factory.mktemp("page") / "study", size=size))


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("is_dark", [False, True])
def test_it_loads_alone_and_fits(browser: Page, report: Path, width: int, is_dark: bool) -> None:
    browser.open(report, width, is_dark=is_dark)
    assert browser.requests == [report.resolve().as_uri()]
    assert browser.errors == []
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    ground = browser.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 384) == is_dark


def test_its_tables_hold_the_numbers_of_the_csv_files(browser: Page, report: Path) -> None:
    browser.open(report)
    cells = browser.evaluate(
        "Object.fromEntries([...document.querySelectorAll('td[data-source]')]"
        ".map(cell => [cell.dataset.source, cell.innerText]))"
    )
    values = sources(report)
    means = {source: text for source, text in cells.items() if source.endswith("|mean")}
    assert len(means) > 50
    for source, text in means.items():
        shown = as_shown(text)
        assert isinstance(shown, float)
        digits = len(text.split(" ")[0].partition(".")[2])
        assert abs(float(values[source]) - shown) <= 0.5001 * 10**-digits, source


def test_no_figure_is_cut_off(browser: Page, report: Path) -> None:
    """No text of a panel lies outside the panel, at either width."""
    for width in (1280, 390):
        browser.open(report, width)
        outside = browser.evaluate(
            """[...document.querySelectorAll('.panel svg')].flatMap(svg => {
                const box = svg.getBoundingClientRect();
                return [...svg.querySelectorAll('text')].filter(text => {
                    const own = text.getBoundingClientRect();
                    return own.left < box.left - 2 || own.right > box.right + 2
                        || own.top < box.top - 2 || own.bottom > box.bottom + 2;
                }).map(text => svg.getAttribute('aria-label') + ': ' + text.textContent);
            })"""
        )
        assert outside == []


def test_what_the_page_would_fetch_is_noticed(browser: Page, tmp_path: Path) -> None:
    """The page's own policy apart: the browser reports requests and errors."""
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><img src='missing.png'><script>nobody.home()</script>")
    browser.open(page)
    assert len(browser.requests) == 2
    assert len(browser.errors) >= 2


def test_a_script_in_a_name_does_not_run(browser: Page, tmp_path: Path) -> None:
    size = Size(num_epochs=2, num_samples=20, num_classes=3)
    name = "<img src=x onerror=document.title='run'><script>document.title='run'</script>"
    report = write_report(write_study(tmp_path / "study", seeds=[0], size=size, name=name))
    browser.open(report)
    assert browser.evaluate("document.title").startswith("<img src=x")
    assert browser.evaluate("document.scripts.length + document.images.length") == 0
    assert browser.requests == [report.resolve().as_uri()]
