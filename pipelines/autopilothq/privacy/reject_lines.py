"""Updates `_rejects` when archive files lose lines, so that each reject has the present number of its line.

The next load of such a file finds the rejected lines at their new places. Their rows already have these places, and the
ids that the load will give them, so no line is in the table twice.
"""

from bisect import bisect_left
from collections.abc import Collection
from hashlib import sha256
from typing import Any

from ..catalog import REJECTS
from ..projection.engine import batched
from ..segment.message import digest
from ..warehouses.dataset import Dataset, placeholders

_ROWS = 50  # at a time, each of up to 1 MiB
_COLUMNS = [column.name for column in REJECTS.columns]
_SELECT = ", ".join(f"{{{name}}}" for name in _COLUMNS)


def move_rejects(dataset: Dataset, file: str, removed: Collection[int]) -> None:
    """Updates the line numbers in the rejects of a file from which the lines in `removed` were removed.

    Rows that lack the line's own bytes stay as they are: rows of deleted persons, and of lines with NUL or bytes that
    are not UTF-8. So do rows at a removed line, which are from an earlier content of the file, and rows whose new place
    is taken by a row that stays.
    """
    lines = sorted(removed)
    where = "WHERE {file} = %s AND {line} >= %s ORDER BY {line}"
    found = dataset.rows("{id}, {line}", REJECTS.name, where, file, lines[0])
    staying = {id_ for id_, line in found if line in removed}
    # From the top, because a row's new place may be the old one of a row above, which must have moved by then.
    for some in batched([id_ for id_, _ in found if id_ not in staying], _ROWS):
        moved, those = {}, f"WHERE {{id}} IN ({placeholders(some)}) ORDER BY {{line}}"
        for row in dataset.rows(_SELECT, REJECTS.name, those, *some):
            cells = dict(zip(_COLUMNS, row, strict=True))
            line = cells["line"] - bisect_left(lines, cells["line"])
            new = _id_at(cells, line)
            if cells["id"] != _id_at(cells, cells["line"]) or new in staying:
                staying.add(cells["id"])
            else:
                moved[cells["id"]] = tuple((cells | {"id": new, "line": line}).values())
        if moved:
            with dataset.transaction():
                where = f"{dataset.quoted(REJECTS.name, 'id')} IN ({placeholders(moved)})"
                dataset.delete(REJECTS.name, where, list(moved))
                dataset.insert(REJECTS, list(moved.values()))


def _id_at(cells: dict[str, Any], line: int) -> str:
    """Returns the id that a load gives to this reject at a line (`audit.sql`)."""
    return sha256(f"{cells['file']}\n{line}\n{digest((cells['raw'] or '').encode())}".encode()).hexdigest()
