"""Text of strangers as people and their terminals may see it: what would act or deceive is escaped.

Names of events, fields, lists, files and tables, links, emails, and what servers say come from outside. In them a
control character could move the cursor or forge a line, one of direction could show a name backwards, and one without
width could hide in a name that looks like another. Every text that is printed, logged or put into a generated format
passes through here.
"""

import json
import re
from typing import Any

import yaml

MOST = 80  # characters of one cell, of text that others chose
# Unicode's control, format and separator characters, and what else has no shape: fillers, variation selectors, tags.
# Not those that are seen (U+0600 and the like), nor U+FE0E and U+FE0F, which choose between text and emoji.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\ud800-\udfff\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str) -> str:
    """The text on one line, with everything escaped that has no shape of its own.

    Example: `visible("a\\x1b[31m\\nb") == r"a\\x1b[31m\\nb"`.
    """
    return _HIDDEN.sub(lambda found: _escaped(found[0]), text)


def visible_lines(text: str) -> str:
    """The same of a text that has lines, which stay."""
    return "\n".join(map(visible, text.split("\n")))


def shortened(text: str, most: int = MOST) -> str:
    """The text as `visible` has it, cut to that many characters."""
    # Escapes make a text longer: what is beyond is not looked at.
    shown = visible(text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def json_text(value: Any, **options: Any) -> str:
    """The value as JSON that reads back the same; times and the like as text. `options` are those of `json.dumps`."""
    text = json.dumps(value, ensure_ascii=False, default=str, **options)
    # Line breaks are the indentation's: in texts JSON has escaped them.
    return _HIDDEN.sub(lambda found: "\n" if found[0] == "\n" else _escaped_in_json(found[0]), text)


def yaml_text(value: Any) -> str:
    """The value as YAML that reads back the same."""
    text: str = yaml.dump(value, allow_unicode=True, default_flow_style=False, sort_keys=False)
    if _HIDDEN.search(text.replace("\n", "")):
        # What YAML calls printable is more than what is seen.
        text = yaml.dump(value, allow_unicode=False, default_flow_style=False, sort_keys=False)
    return text


def _escaped(sign: str) -> str:
    code = ord(sign)
    long = f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return _SHORT.get(sign) or (f"\\x{code:02x}" if code < 0x100 else long)


def _escaped_in_json(sign: str) -> str:
    return json.dumps(sign)[1:-1] if sign != "\x7f" else "\\u007f"
