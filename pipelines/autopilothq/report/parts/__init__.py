"""The parts of the page. Each is a function from its numbers to HTML, and says why it has none."""

from ..elements import Content, Markup, division, element
from ..numbers import Absent


def card(anchor: str, title: str, note: Content, *content: Content, class_: str = "card") -> Markup:
    """Returns a part of the page: a heading, what its numbers mean, and its content."""
    return element(
        "section",
        element("h2", title),
        element("p", note, class_="note") if note else None,
        *content,
        class_=class_,
        id=anchor,
    )


def absent(anchor: str, title: str, part: Absent) -> Markup:
    """Returns a part that has no numbers, with the reason."""
    return card(anchor, title, None, division("absent", part.reason))
