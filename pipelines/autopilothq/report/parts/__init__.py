"""The parts of the page. Each is a function that turns its numbers, or the reason why it has none, into HTML."""

from ..elements import Content, Markup, division, element
from ..numbers import Absent


def card(anchor: str, title: str, note: Content, *content: Content) -> Markup:
    """Returns a part of the page: a heading, a note on the meaning of its numbers, and its content."""
    return element(
        "section",
        element("h2", title),
        element("p", note, class_="note") if note else None,
        *content,
        class_="card",
        id=anchor,
    )


def absent(anchor: str, title: str, part: Absent) -> Markup:
    """Returns a part of the page that has no numbers, with the reason."""
    return card(anchor, title, None, division("absent", part.reason))
