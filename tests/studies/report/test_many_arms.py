"""The page of a study of many arms: what stands in the place of one panel and one sentence each."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from softmax_gradient_tampering.studies.report.figures.arm_styles import short
from softmax_gradient_tampering.studies.report.report import write_report
from tests.studies.report.browser import Page, find_chromium
from tests.studies.report.test_report import Reader
from tests.studies.synthetic import ARMS, BASELINE, FakeArm, Size, write_study

SIZE = Size(num_epochs=4, num_samples=60, num_classes=3, class_names=("cat", "frog", "ship"))
NUM_ARMS = 30


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    alphas = [round(n / 27, 3) for n in range(26, 0, -1)]
    effects = (2.0, -2.0, 0.0, 0.5)
    tampered = [
        FakeArm(f"alpha-{alpha:g}", "tampered", alpha, effects[n % 4])
        for n, alpha in enumerate(alphas)
    ]
    schedule = replace(ARMS[-1], name="a schedule with a rather long name, linear")
    arms = [BASELINE, *tampered, *ARMS[5:8], schedule]
    return write_report(write_study(tmp_path_factory.mktemp("many") / "study", arms, [0, 1], SIZE))


def test_every_arm_has_a_row_and_panels_of_its_own(report: Path) -> None:
    page = report.read_text()
    plot = page[page.index('id="differences"') : page.index("Result</h2>")]
    assert plot.count('class="name"') == NUM_ARMS - 2  # tuned among them, the baseline not
    for column in ("eval_top1", "eval_loss"):
        figure = page[page.index(f'<figure id="curves-{column}"') :].partition("</figure>")[0]
        assert figure.count('<div class="panel">') == NUM_ARMS - 1


def test_the_sentences_are_by_verdict_and_not_the_table_again(report: Path) -> None:
    page = report.read_text()
    verdicts = page[page.index('<ul class="verdicts">') :].partition("</ul>")[0]
    assert verdicts.count("<li>") <= 7
    assert verdicts.count("alpha-") == 26
    assert "points" not in verdicts


def test_no_table_is_wider_than_a_page_of_paper(report: Path) -> None:
    widths: list[int] = []
    for row in re.findall(r"<tr>(.*?)</tr>", report.read_text()):
        widths.append(row.count('<th scope="col"'))
    assert max(widths) <= 11


def test_long_names_are_cut_where_they_do_not_differ() -> None:
    names = ("regularised-with-weight-decay-0.001", "regularised-with-weight-decay-0.01")
    first, second = (short(name, 17) for name in names)
    assert (first, second) == ("regularised…0.001", "regularised…-0.01")
    assert short("alpha-0.25", 17) == "alpha-0.25"


def test_values_are_said_under_the_pointer(report: Path) -> None:
    page = Reader(report.read_text())
    titles = [attributes for tag, attributes in page.tags if tag == "title"]
    assert len(titles) > 100
    assert "<title>alpha-0.963, seed 1: " in report.read_text()


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")
@pytest.mark.parametrize("width", [1400, 390])
def test_its_forest_plot_can_be_read(browser: Page, report: Path, width: int) -> None:
    """No word of a row lies on another or outside the page; letters are large enough."""
    browser.open(report, width)
    # Of two seeds of a small test set, as wide as values get.
    wide = "for (const v of document.querySelectorAll('.forest .value')) v.textContent = "
    browser.evaluate(f"{wide}'−100.00 ± 1270.62'")
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    faults = browser.evaluate(
        """[...document.querySelectorAll('.forest .row:not(.axis)')].flatMap(row => {
            const words = [...row.querySelectorAll('.name, .value, .said')].map(word => {
                const range = document.createRange();
                range.selectNodeContents(word);
                return range.getBoundingClientRect();
            });
            const size = parseFloat(getComputedStyle(row).fontSize);
            const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1
                && a.top < b.bottom - 1 && b.top < a.bottom - 1;
            const bad = words.some((a, i) => a.right > innerWidth + 1
                || words.some((b, j) => i < j && meet(a, b)));
            const plot = row.querySelector('svg').getBoundingClientRect();
            return bad || size < 12 || plot.width < 160 ? [row.textContent] : [];
        })"""
    )
    assert faults == []


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")
def test_nothing_is_cut_off_on_paper(browser: Page, report: Path) -> None:
    """A4 within its margins is 688 pixels wide."""
    browser.open(report, 688)
    browser.send("Emulation.setEmulatedMedia", media="print")
    try:
        wide = browser.evaluate(
            """[...document.querySelectorAll('table, figure')].filter(
                part => part.getBoundingClientRect().right > 690).map(part => part.id)"""
        )
        assert wide == []
    finally:
        browser.send("Emulation.setEmulatedMedia", media="")
