"""Makes untrusted text safe to show: escapes every character that would act on a terminal or deceive a reader.

Names of events, fields, lists, files and tables, links, emails, and messages of servers come from outside. In them a
control character could move the cursor or forge a line, a direction mark could show a name backwards, and a character
without width could make two names look alike. Every text that is printed, logged or put into a generated format passes
through here.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

MAX_CELL = 80  # characters of untrusted text that one cell shows
# Unicode's control, format and separator characters, and other invisible ones: fillers, variation selectors, tags.
# Left out are those that are visible (U+0600 and the like), and U+FE0E and U+FE0F, which choose between text and emoji.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\ud800-\udfff\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_RAISED = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Relation|BusyError)\w*: (.+)$", re.MULTILINE)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def nearest(name: str, known: Sequence[str]) -> str:
    """Returns the end of an error message about an unknown name: the known name most like it, or all known names.

    Examples: `nearest("regoin", ["region"]) == "did you mean region?"`, `nearest("x", ["a", "b"]) == "there are a, b"`.
    """
    near = _near(name, known)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}"


def nearest_of(name: str, known: Sequence[str]) -> str:
    """Returns the end of a sentence about an unknown name: the known name most like it; "" if none is close.

    Example: `nearest_of("regoin", ["region"]) == " (did you mean region?)"`.
    """
    return f" (did you mean {near[0]}?)" if (near := _near(name, known)) else ""


def _near(name: str, known: Sequence[str]) -> list[str]:
    import difflib  # not at the top, where every command would import it

    return difflib.get_close_matches(name, known, n=1)


def visible(text: str) -> str:
    """Returns the text on one line, with every control, invisible or direction character escaped.

    Example: `visible("a\\x1b[31m\\nb") == r"a\\x1b[31m\\nb"`.
    """
    return _HIDDEN.sub(lambda found: _escaped(found[0]), text)


def visible_lines(text: str) -> str:
    """Returns the text with its line breaks kept and each line as `visible` returns it."""
    return "\n".join(map(visible, text.split("\n")))


def shortened(text: str, most: int = MAX_CELL) -> str:
    """Returns the text as `visible` does, cut to `most` characters."""
    # Escaping only makes a text longer, so what is cut off anyway need not be escaped.
    shown = visible(text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def plural(count: int, word: str, words: str | None = None) -> str:
    """Returns a count with its noun.

    Example: `plural(1, "load") == "1 load"`, `plural(1200, "load") == "1,200 loads"`.
    """
    return f"{count:,} {word if count == 1 else words or word + 's'}"


def json_text(value: Any, **options: Any) -> str:
    """Returns the value as JSON; values without a JSON type, such as times, as text. `options` go to `json.dumps`."""
    text = json.dumps(value, ensure_ascii=False, default=str, **options)
    # Every line break is one of the indentation, because JSON escapes those in strings.
    return _HIDDEN.sub(lambda found: "\n" if found[0] == "\n" else _escaped_in_json(found[0]), text)


def yaml_text(value: Any) -> str:
    """Returns the value as YAML that reads back the same."""
    import yaml

    text: str = yaml.dump(value, allow_unicode=True, default_flow_style=False, sort_keys=False)
    if _HIDDEN.search(text.replace("\n", "")):
        # YAML leaves some invisible characters unescaped, because it counts them as printable.
        text = yaml.dump(value, allow_unicode=False, default_flow_style=False, sort_keys=False)
    return text


def gist(text: str) -> str:
    """Returns the most telling line of a text: its first one, joined with the next if it ends in a colon.

    If the text has a traceback, as dlt's messages about failed jobs do, returns the message of the last error in it.
    """
    raised = _RAISED.findall(text)
    if "Traceback (most recent call last):" in text and raised:
        return str(raised[-1])
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])


def _escaped(char: str) -> str:
    code = ord(char)
    long = f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return _SHORT.get(char) or (f"\\x{code:02x}" if code < 0x100 else long)


def _escaped_in_json(char: str) -> str:
    return json.dumps(char)[1:-1] if char != "\x7f" else "\\u007f"
