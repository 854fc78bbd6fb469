"""The page's colours as data, in a light and a dark theme, and its style sheet.

Text has a contrast of at least 4.5 : 1 to its background, and bars and lines have 3 : 1, which a test checks. Colour
alone carries no information: there is always also a word, a sign or a different stroke.
"""

from functools import cache
from importlib import resources

Colors = dict[str, str]

LIGHT: Colors = {
    "page": "#f6f6f2",
    "card": "#ffffff",
    "text": "#1a1e24",
    "muted": "#59616d",
    "line": "#e0e1de",
    "track": "#ecedea",
    "delivered": "#7d8796",
    "delivered-text": "#59616d",
    "opened": "#1f63d0",
    "opened-text": "#1b57b8",
    "clicked": "#c04d00",
    "clicked-text": "#a64300",
    "over": "#b42318",
    "near": "#805600",
    "good": "#1a6e42",
    "link": "#1b57b8",
}
DARK: Colors = {
    "page": "#0f1216",
    "card": "#181c22",
    "text": "#e8eaed",
    "muted": "#a3abb7",
    "line": "#2c323b",
    "track": "#2a3038",
    "delivered": "#8a94a3",
    "delivered-text": "#a9b1bd",
    "opened": "#5b9bff",
    "opened-text": "#7fb0ff",
    "clicked": "#f08c4a",
    "clicked-text": "#f5a46d",
    "over": "#ff8a7f",
    "near": "#e6b34a",
    "good": "#66c792",
    "link": "#7fb0ff",
}

# From low to high values. High ones stand out: dark on white, bright on black.
LIGHT_RAMP = ("#eef4fd", "#d6e5fa", "#b8d1f6", "#97bbf1", "#74a3e9", "#4f88dd", "#316dcb", "#2258b0", "#174690")
DARK_RAMP = ("#182234", "#1b2d4a", "#1f3a63", "#25497f", "#2c5a9d", "#386fbd", "#4c87d8", "#6ea3ec", "#9ac1fa")
STEPS = len(LIGHT_RAMP)


def contrast(one: str, other: str) -> float:
    """Returns the contrast ratio of two colours, as in WCAG 2. Example: `contrast("#000000", "#ffffff") == 21`."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: str) -> float:
    parts = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def on(color: str) -> str:
    """Returns black or white, whichever has more contrast on a colour."""
    return max("#ffffff", "#101418", key=lambda text: contrast(text, color))


def step(value: float, least: float, most: float) -> int:
    """Returns the step of the colour ramp for a value between `least` and `most`, or the first if these are equal."""
    span = most - least
    return min(STEPS - 1, max(0, int((value - least) / span * STEPS))) if span > 0 else 0


def _variables(colors: Colors, ramp: tuple[str, ...]) -> str:
    ramps = {f"r{n}": color for n, color in enumerate(ramp)} | {f"t{n}": on(color) for n, color in enumerate(ramp)}
    return "".join(f"--{name}:{color};" for name, color in (colors | ramps).items())


@cache
def style_sheet() -> str:
    """Returns the CSS of the page."""
    rules = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    steps = "".join(f".r{n}{{background:var(--r{n});color:var(--t{n})}}" for n in range(STEPS))
    return (
        f":root{{color-scheme:light dark;{_variables(LIGHT, LIGHT_RAMP)}}}"
        f"@media (prefers-color-scheme:dark){{:root{{{_variables(DARK, DARK_RAMP)}}}}}{rules}{steps}"
    )
