"""HTML from Python: every text is escaped, unless it is Markup already."""

import html
import re
from importlib import resources

_ILLEGAL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]"
)
# Nothing is fetched and nothing is run, whatever the files of a study hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_VOID = {"meta", "br", "col"}


class Markup(str):
    """A text that is HTML, and is not escaped again."""

    __slots__ = ()


def escape(text: object) -> Markup:
    """A text as HTML: escaped, without control characters and marks that turn its direction.

    >>> escape("<b> & \\x00")
    '&lt;b&gt; &amp; \ufffd'
    """
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(clean(text), quote=True))


def clean(text: object) -> str:
    """A text without control characters and marks that turn its direction."""
    return _ILLEGAL.sub("\ufffd", str(text))


def element(tag: str, *content: object, **attributes: object) -> Markup:
    """An element; content and attribute values are escaped.

    Args:
        tag: its name.
        content: in order; None is left out.
        attributes: by name, `_` for `-`, a final `_` dropped; None is left out.

    >>> element("p", "a < b", class_="note")
    '<p class="note">a &lt; b</p>'
    """
    words = [tag]
    for name, value in attributes.items():
        if value is not None:
            words.append(f'{name.rstrip("_").replace("_", "-")}="{escape(str(value))}"')
    opening = f"<{' '.join(words)}>"
    if tag in _VOID:
        return Markup(opening)
    return Markup(f"{opening}{join(*content)}</{tag}>")


def join(*content: object, separator: str = "") -> Markup:
    """Contents one after the other, escaped; None is left out."""
    return Markup(separator.join(escape(part) for part in content if part is not None))


def document(title: str, body: Markup) -> str:
    """A whole HTML file, with the style of a report."""
    style = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    head = join(
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", title),
        element("style", Markup(style)),
    )
    html = element("html", element("head", head), element("body", element("main", body)), lang="en")
    return f"<!doctype html>\n{html}\n"
