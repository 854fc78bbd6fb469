"""Charts in SVG and CSS. Lines stretch with the page, texts keep their size, and all numbers are also given as text."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from ..display import plural
from .elements import Markup, division, element, join, span
from .numbers import RateLimit
from .wording import number, percents, rounded

WIDTH, HEIGHT = 1000, 200  # a chart's size in its own coordinates
LABEL_HEIGHT = 7.5  # the height of a line's name, in percent of the plot's height
NEAR = "near"
OVER = "over"
SIGNS = {OVER: "▲", NEAR: "●"}


class Line(NamedTuple):
    """A line of a plot; its name is also a class of the style sheet."""

    name: str
    color: str
    values: Sequence[int]


def bar(value: float, most: float, color: str) -> Markup:
    """Returns a horizontal bar that is full if `value` is `most`."""
    return span("track", span(f"fill {color}", style=f"width:{_percents(value, most)}") if value else None)


def named_bar(name: str, count: int, most: int, color: str, share: str) -> Markup:
    """Returns a bar with its name on the left, and its number and share on the right."""
    return division(
        "step", span("name", name), bar(count, most, color), span("n", number(count)), span("n share", share)
    )


def _bullet(value: float | None, limit: RateLimit) -> Markup:
    """Returns a bar for a value in percent, with marks at the goal and at the limit."""
    scale = max(limit.most * 1.6, (value or 0) * 1.02)
    return span(
        "bullet",
        span(f"fill {verdict(value, limit) or 'delivered'}", style=f"width:{_percents(value, scale)}")
        if value
        else None,
        *(span("mark", style=f"left:{_percents(at, scale)}") for at in dict.fromkeys(limit)),
    )


def verdict(value: float | None, limit: RateLimit) -> str:
    """Compares a value in percent, as the page rounds it, with a limit; returns `over`, `near`, or `""`."""
    if value is None or (shown := round(value, 2)) < limit.goal:
        return ""
    return OVER if shown >= limit.most else NEAR


def flag(found: str, more: str = "") -> Markup | None:
    """Returns the sign and the word for a verdict, followed by `more`; None for the verdict `""`."""
    return span(f"flag {found}", f"{SIGNS[found]} {found}{more}") if found else None


def sparkline(values: Sequence[float | None], label: str) -> Markup:
    """Returns a small line without axes through at least two values; None is a gap. Screen readers get the `label`."""
    known = [value for value in values if value is not None]
    least, most = min(known), max(known)
    span_ = (most - least) or 1
    points = [
        None if value is None else (_x(n, len(values)), 8 + (HEIGHT - 16) * (1 - (value - least) / span_))
        for n, value in enumerate(values)
    ]
    return division("spark", _svg(_path(points, "s"), label))


def plot(names: Sequence[str], lines: Sequence[Line], label: str) -> Markup:
    """Returns lines over days, with an axis from zero, names at the ends of the lines, and each day's numbers."""
    steps = ticks(max((max(line.values, default=0) for line in lines), default=0))
    most = steps[-1] or 1
    paths = join(
        *(
            _path([(_x(n, len(names)), HEIGHT * (1 - value / most)) for n, value in enumerate(line.values)], line.color)
            for line in lines
        )
    )
    grid = (division("tick", span(None, rounded(at)), style=f"bottom:{_percents(at, most)}") for at in steps)
    return join(
        _legend(lines),
        division(
            "plot",
            *grid,
            _svg(paths, label),
            *_ends(lines, most),
            *_days(names),
            *(_hit(n, names, lines) for n in range(len(names))),
        ),
    )


def ticks(most: float) -> list[int]:
    """Returns round numbers from zero to the first that is not below `most`.

    Example: `ticks(17) == [0, 5, 10, 15, 20]`.
    """
    if most <= 0:
        return [0, 1]
    size = 10 ** math.floor(math.log10(most))
    gap = next(gap for part in (0.2, 0.5, 1, 2) if most / (gap := part * size) <= 5)
    gap = max(1, round(gap))
    return list(range(0, math.ceil(most / gap) * gap + 1, gap))


def columns(names: Sequence[tuple[str, str]], counts: Sequence[int], median: int) -> Markup:
    """Returns vertical bars, with shares above and two-line names below; the bar of the median is highlighted."""
    total, most = sum(counts) or 1, max(counts, default=0) or 1
    found = [
        division(
            "column median" if n == median else "column",
            span("share", percent_short(100 * count / total)),
            span("stick", style=f"height:{76 * count / most:.1f}%"),
            title=f"{' '.join(name)}: {plural(count, 'first open')}",
        )
        for n, (name, count) in enumerate(zip(names, counts, strict=True))
    ]
    below = [span("below", span(None, size), element("br"), span(None, unit)) for size, unit in names]
    return join(division("columns", *found), division("belows", *below))


def percent_short(value: float) -> str:
    """Returns whole percents. Example: `percent_short(0.2) == "<1%"`."""
    return "<1%" if 0 < value < 0.5 else f"{value:.0f}%"


def _hit(at: int, names: Sequence[str], lines: Sequence[Line]) -> Markup:
    x, half = _x(at, len(names)) / 10, 50 / max(1, len(names) - 1)
    left, right = max(0.0, x - half), min(100.0, x + half)
    rows = (
        division(None, span(f"key {line.color}"), span(None, f"{line.name} "), element("b", number(line.values[at])))
        for line in lines
    )
    side = "tip left" if x > 50 else "tip"
    return join(
        division("hit", style=f"left:{left:.2f}%;width:{right - left:.2f}%"),
        division(side, element("b", names[at]), *rows, style=f"--x:{x:.2f}%"),
        division("at", style=f"left:{x:.2f}%"),
    )


def _legend(lines: Sequence[Line]) -> Markup:
    keys = (span("entry", span(f"key {line.color}"), span(f"{line.color}-text", line.name)) for line in lines)
    return division("legend", *keys)


def _ends(lines: Sequence[Line], most: float) -> list[Markup]:
    """Returns the names of lines, placed at the ends of the lines and moved apart where they would overlap."""
    ordered = sorted((line for line in lines if line.values), key=lambda line: line.values[-1])
    found, free = [], -100.0
    for line in ordered:
        free = max(free + LABEL_HEIGHT, 100 * line.values[-1] / most)
        found.append(span(f"end {line.color}-text", line.name, style=f"bottom:{min(free, 118):.1f}%"))
    return found


def _days(names: Sequence[str]) -> list[Markup]:
    shown = spread(len(names), 7)
    kept = set(shown[::2]) if len(shown) > 4 else set(shown)
    return [
        span("day" if n in kept else "day wide", names[n], style=f"left:{_x(n, len(names)) / 10:.2f}%") for n in shown
    ]


def spread(count: int, most: int) -> list[int]:
    """Returns at most `most` evenly spaced indices below `count`. Example: `spread(9, 5) == [0, 2, 4, 6, 8]`."""
    gap = -(-max(0, count - 1) // (most - 1)) or 1
    return list(range(0, count, gap))


def _svg(content: Markup, label: str) -> Markup:
    box = f"0 0 {WIDTH} {HEIGHT}"
    return element("svg", content, viewBox=box, preserveAspectRatio="none", role="img", aria_label=label)


def _path(points: Sequence[tuple[float, float] | None], color: str) -> Markup:
    steps, pen = [], "M"
    for n, point in enumerate(points):
        if point is None:
            pen = "M"
            continue
        alone = pen == "M" and (n + 1 == len(points) or points[n + 1] is None)
        steps.append(f"{pen}{point[0]:.1f} {point[1]:.1f}{'h0' if alone else ''}")
        pen = "L"
    dots = " dots" if len(points) == 1 else ""
    return element("path", d="".join(steps), class_=f"stroke {color}{dots}")


def _x(at: int, count: int) -> float:
    return WIDTH * at / (count - 1) if count > 1 else WIDTH / 2


def _percents(value: float, whole: float) -> str:
    return f"{min(100.0, 100 * value / whole) if whole else 0:.2f}%"


def rated(value: float | None, limit: RateLimit) -> Markup:
    """Returns a percentage with its bullet, and the verdict on the limit in words."""
    found = verdict(value, limit)
    return division("rated", _bullet(value, limit), span(found or None, percents(value)), flag(found))
