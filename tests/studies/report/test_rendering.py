"""Templates: what is a text stays one, and what is missing is an error."""

import ast
import re
from importlib import resources

import jinja2
import pytest

from softmax_gradient_tampering.studies.report import rendering
from softmax_gradient_tampering.studies.report.rendering import render
from softmax_gradient_tampering.studies.report.tables.table import Cell, Column, Row, Table

HOSTILE = "<b onclick='x'>\"&\u202e\x07</b>"
SEARCH = {"name": "n", "verdict": "v", "file": "f"}


def trials(text: str) -> Table:
    cells = [Cell(text, style=text, source=text, mark=text)]
    return Table(text, text, [Column(text)], [Row(text, cells, text)], [(text, 1)])


def test_every_value_is_escaped_and_cleaned() -> None:
    page = render("search.html", trials=trials(HOSTILE), **dict.fromkeys(SEARCH, HOSTILE))
    assert "<b" not in page.partition("<body>")[2]
    assert not re.search("[\x07\u202e]", page)
    assert page.count("&lt;b onclick=&#39;x&#39;&gt;&#34;&amp;\ufffd\ufffd&lt;/b&gt;") > 10


def test_a_value_that_is_missing_or_none_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="'verdict' is undefined"):
        render("search.html", trials=trials("t"), name="n", file="f")
    with pytest.raises(TypeError, match="a value that is None"):
        render("search.html", trials=trials("t"), **{**SEARCH, "verdict": None})


def test_no_template_turns_escaping_off_or_holds_a_script() -> None:
    folder = resources.files(rendering.__package__).joinpath("templates")
    texts = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert {"page.html", "search.html", "report.css"} <= set(texts)
    for name, text in texts.items():
        assert not re.search(r"\|\s*safe|autoescape|<script|\son\w+=|src=|href=", text), name
    source = resources.files(rendering.__package__).joinpath("rendering.py").read_text("utf-8")
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    (environment,) = (
        c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "Environment"
    )
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in environment.keywords}
    assert (keywords["autoescape"], keywords["undefined"]) == ("True", "StrictUndefined")
