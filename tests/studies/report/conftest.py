"""A browser for the tests of the page."""

from collections.abc import Iterator

import pytest

from tests.studies.report.browser import Page, open_browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_browser(tmp_path_factory.mktemp("profile")) as page:
        yield page
