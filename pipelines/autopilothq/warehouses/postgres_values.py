"""Reads the values of a user's query from PostgreSQL. Those that Python's types cannot hold stay the server's texts.

By itself the driver makes other values of some: infinite times become the first or the last of the calendar, 24:00
becomes 00:00, a month 30 days, and decimals in JSON floats. A year beyond 1 to 9999 ends the query.
"""

import json
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any, cast

from psycopg2 import extensions, extras

_TIMES = (
    (extensions.PYDATE, extensions.PYDATEARRAY),
    (extensions.PYDATETIME, extensions.PYDATETIMEARRAY),
    (extensions.PYDATETIMETZ, extensions.PYDATETIMETZARRAY),
    (extensions.PYTIME, extensions.PYTIMEARRAY),
)
# PostgreSQL's numbers of its types of ranges, each followed by that of its arrays.
_RANGES = ((3904, 3905), (3906, 3907), (3908, 3909), (3910, 3911), (3912, 3913), (3926, 3927))
_NO_TIME = ("infinity", "-infinity", "24:")


def keep_values(cursor: extensions.cursor) -> None:
    """Makes a cursor return values as they are."""
    for usual, usual_array in _TIMES:
        _register(cursor, usual.values, usual_array.values, partial(_time, usual))
    texts, arrays = zip(*_RANGES, strict=True)
    intervals = (extensions.PYINTERVAL, extensions.PYINTERVALARRAY)
    _register(cursor, texts + intervals[0].values, arrays + intervals[1].values, lambda text, _: text)
    loads = partial(json.loads, parse_float=Decimal)
    extras.register_default_json(cursor, loads=loads)
    extras.register_default_jsonb(cursor, loads=loads)


def _register(
    cursor: extensions.cursor, types: tuple[int, ...], arrays: tuple[int, ...], read: Callable[[str | None, Any], Any]
) -> None:
    one = extensions.new_type(types, "AS_IT_IS", cast(Any, read))
    extensions.register_type(one, cursor)
    extensions.register_type(extensions.new_array_type(arrays, "ARRAY_AS_IT_IS", one), cursor)


def _time(usual: Callable[[str | None, Any], Any], text: str | None, cursor: Any) -> Any:
    """Returns a date or a time, or the text if it is none of the calendar."""
    if text is None or text.startswith(_NO_TIME):
        return text
    try:
        return usual(text, cursor)
    except (ValueError, OverflowError):  # a year beyond 1 to 9999
        return text
