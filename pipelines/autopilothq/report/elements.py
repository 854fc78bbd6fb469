"""HTML elements as text. All text that is not `Markup` is escaped, so that no untrusted text becomes an element.

Invisible characters (control characters, direction marks) are shown as escapes, as in all output.
"""

from collections.abc import Iterable
from html import escape

from ..display import shortened

MOST_CHARACTERS = 120  # characters of an untrusted name
MOST_PROSE = 2_000  # characters of a text of the page
_VOID = {"meta", "br"}


class Markup(str):
    """A text that is HTML, and is not escaped again."""

    __slots__ = ()


Content = str | Markup | None


def escaped(value: str) -> Markup:
    """Escapes a text for HTML, on one line and cut to `MOST_PROSE` characters."""
    return Markup(escape(shortened(value, MOST_PROSE)))


def display_name(value: str) -> str:
    """Returns an untrusted name, cut to `MOST_CHARACTERS`."""
    return shortened(value, MOST_CHARACTERS)


def element(tag: str, *content: Content, **attributes: str | None) -> Markup:
    """Returns an element. Attributes that are None are left out; `class_` is `class`, and `_` in a name is `-`.

    Example: `element("p", "a < b", class_="note") == '<p class="note">a &lt; b</p>'`.
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{given}>")
    return Markup(f"<{tag}{given}>{join(*content)}</{tag}>")


def join(*content: Content) -> Markup:
    """Concatenates contents. None is left out."""
    return Markup("".join(part if isinstance(part, Markup) else escaped(part) for part in content if part is not None))


def division(class_: str | None, *content: Content, **attributes: str | None) -> Markup:
    """Returns a `div` of a class."""
    return element("div", *content, class_=class_, **attributes)


def span(class_: str | None, *content: Content, **attributes: str | None) -> Markup:
    """Returns a `span` of a class."""
    return element("span", *content, class_=class_, **attributes)


def table(class_: str, columns: Iterable[tuple[str, str]], rows: Iterable[Markup]) -> Markup:
    """Returns a `table` of a class. `columns` are the titles and classes of its head; without them, it has no head."""
    heads = [element("th", title, class_=of_column or None) for title, of_column in columns]
    head = element("thead", element("tr", *heads)) if heads else None
    return element("table", head, element("tbody", *rows), class_=class_)


def row(name: Content, *cells: Content) -> Markup:
    """Returns a row of a table from its name and the cells after it."""
    return element("tr", element("th", name, scope="row"), *cells)


def data_cell(value: Content, class_: str | None = None, **attributes: str | None) -> Markup:
    """Returns a cell of a table."""
    return element("td", value, class_=class_, **attributes)
