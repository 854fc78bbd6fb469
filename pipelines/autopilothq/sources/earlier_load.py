"""Records which complete loads a load was read after, and which rows it brings.

A load leaves out what was stored when it was read. dlt may store its rows much later: after the dataset was restored
from a backup or dropped, after another machine replaced rows, or into another dataset. What the load left out is then
missing there. A load that was cut off is continued as well: if the dataset was restored meanwhile, what the load had
stored before is missing, and its rows of users, which replace others, lack what another machine loaded meanwhile. dlt
completes such a load all the same, but it must not count as complete.
"""

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import dlt

from .. import disk, private
from ..catalog import DISCARDS, REJECTS
from ..warehouses.dataset import Dataset
from ..warehouses.dlt_internals import LOADS_TABLE_NAME, DatabaseTerminalException, logger
from ..warehouses.dlt_internals.resources import uncut_loads
from ..warehouses.hints import REPLACED

_FILE = "autopilothq-loads/earlier.json"  # in the pipeline's working folder, where load packages wait as well
_MOST = 20  # loads that are recorded: hardly more can wait to be stored
BOOK_TIMES = {REJECTS.name: "rejected_at", DISCARDS.name: "discarded_at"}  # in all other tables it is uuid_ts
_EVER = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
_REPLACED = frozenset(table.name for table in REPLACED)
LOST_DIGITS = timedelta(milliseconds=1)  # some destinations keep only milliseconds of a time


class Stored(NamedTuple):
    """The `complete` loads of a dataset, and the `audited` ones, which loaded files according to `_audit`.

    Loads of APIs do not look up the latter: `audited` is None.
    """

    complete: AbstractSet[str]
    audited: AbstractSet[str] | None = None

    def lacks(self, earlier: "Stored") -> bool:
        """Returns whether the dataset was restored or dropped since, or all of `_audit` was replaced or deleted.

        Single loads may disappear from `_audit`, because later ones take over their files.
        """
        if earlier.audited and self.audited is not None and self.audited.isdisjoint(earlier.audited):
            return True
        return not earlier.complete <= self.complete

    def shows(self, earlier: "Stored") -> bool:
        """Returns whether it is certain that the dataset still has all loads of an `earlier` state."""
        return not self.lacks(earlier) and (self.audited is not None or not earlier.audited)

    def joined(self, other: "Stored") -> "Stored":
        """Returns the loads of both."""
        return Stored(self.complete | other.complete, (self.audited or frozenset()) | (other.audited or frozenset()))


class Brought(NamedTuple):
    """The rows that a source brings: when it stores them (ISO 8601), and their number by table."""

    stored_at: str
    rows: Mapping[str, int]

    @property
    def replaces(self) -> bool:
        """Whether any of the rows replace others, as those of users do."""
        return not self.rows.keys().isdisjoint(_REPLACED)

    def is_in(self, dataset: Dataset) -> bool:
        """Returns whether all these rows are in a dataset, as far as its tables record when rows were stored.

        Rows that replace others may have been replaced since, and rejects and discards may have been stored before.
        If a user gave a table's times a type that cannot be compared with times, its rows count as missing.
        """
        at = datetime.fromisoformat(self.stored_at)
        found = dataset.columns()
        for table, count in self.rows.items():
            column = stored_at(table)
            if table not in found:
                return False
            if column in found[table]:
                since = _EVER[0] if table in BOOK_TIMES else at - LOST_DIGITS
                until = _EVER[1] if table in _REPLACED else at + LOST_DIGITS
                within = f"WHERE {{{column}}} >= %s AND {{{column}}} <= %s"
                try:
                    [[stored]] = dataset.rows("count(*)", table, within, since, until)
                except DatabaseTerminalException:
                    return False
                if stored < count:
                    return False
        return True


class _Noted(NamedTuple):
    """What is recorded of a load.

    `brought` is empty if its rows need no check, and None if some of them are known to be missing. `meanwhile` are
    those of the earlier loads that became complete while this one was read.
    """

    earlier: Stored
    brought: tuple[Brought, ...] | None = ()
    meanwhile: AbstractSet[str] = frozenset()


def note_earlier(
    pipeline: dlt.Pipeline,
    load_id: str,
    earlier: Stored,
    now: Stored,
    brought: Brought,
    meanwhile: AbstractSet[str] = frozenset(),
) -> None:
    """Records that a load was read after the loads `earlier`, and which rows it brings.

    All earlier loads are recorded, because none is certainly the last: ids are times, and another machine's clock may
    be wrong. Those that became complete `meanwhile` may have stored rows that this load has seen, and others that it
    has not. If several sources share a load, their records are joined. Recorded loads that are complete `now` and lack
    nothing are forgotten.
    """
    if not earlier.complete and not brought.rows:
        return
    found = _read(pipeline.working_dir)
    kept = {of: each for of, each in found.items() if of not in now.complete or _is_needed(each, now)}
    noted = _Noted(earlier, (brought,) if brought.rows else (), meanwhile)
    if load_id in kept:
        other = kept.pop(load_id)
        both = (*(noted.brought or ()), *(other.brought or ()))
        noted = _Noted(earlier.joined(other.earlier), both, meanwhile | other.meanwhile)
    _write(pipeline, {**kept, load_id: noted})


def _is_needed(noted: _Noted, now: Stored) -> bool:
    return noted.brought != () or not now.shows(noted.earlier)


def outdated_loads(pipeline: dlt.Pipeline, now: Stored, dataset: Dataset) -> set[str]:
    """Returns which of a dataset's complete loads lack rows: their own, or those of loads that they were read after.

    A load whose rows replaced those that another load had brought since it was read counts as lacking rows, too. The
    own rows of a load are looked up once, and only if it may have been cut off and continued.

    Example: `outdated_loads(pipeline, Stored({"2.0"}), dataset) == {"2.0"}` if load 2.0 was read after 1.0.
    """
    noted = _read(pipeline.working_dir)
    complete = {load_id: each for load_id, each in noted.items() if load_id in now.complete}
    unchecked = [load_id for load_id, each in complete.items() if each.brought and _can_check(each, now)]
    if unchecked:
        uncut = uncut_loads(pipeline)
        for load_id in unchecked:
            is_whole = _is_whole(dataset, now, load_id, complete[load_id], load_id in uncut)
            complete[load_id] = complete[load_id]._replace(brought=() if is_whole else None)
        _write(pipeline, {**noted, **complete})
    return {load_id for load_id, each in complete.items() if each.brought is None or now.lacks(each.earlier)}


def _can_check(noted: _Noted, now: Stored) -> bool:
    """Returns whether the rows of a load can be checked. If they replace others, the loads in `_audit` are needed."""
    return now.audited is not None or not any(each.replaces for each in noted.brought or ())


def _is_whole(dataset: Dataset, now: Stored, load_id: str, noted: _Noted, is_uncut: bool) -> bool:
    """Returns whether all rows of a complete load are there, and replaced no rows that the load had not seen."""
    brought = noted.brought or ()
    others = now.complete - (noted.earlier.complete - noted.meanwhile) - {load_id}
    readers = others & (now.audited or frozenset())
    ended: dict[str, Any] = dict(dataset.rows("{load_id}, {inserted_at}", LOADS_TABLE_NAME)) if others else {}
    if any(each.replaces for each in brought) and any(ended[other] < ended[load_id] for other in readers):
        return False
    return is_uncut or all(each.is_in(dataset) for each in brought)


def stored_at(table: str) -> str:
    """Returns the name of the column with the time at which a row of a table was stored."""
    return BOOK_TIMES.get(table, "uuid_ts")


def rows_noted(working_folder: Path, load_id: str) -> Sequence[Brought]:
    """Returns what is recorded about the rows of a load, for each of its sources; empty if nothing is known."""
    noted = _read(working_folder).get(load_id)
    return (noted.brought if noted else None) or ()


def _write(pipeline: dlt.Pipeline, noted: Mapping[str, _Noted]) -> None:
    path = Path(pipeline.working_dir, _FILE)
    private.folder(path.parent)
    with disk.rewriting(path, "w") as file:
        json.dump({load_id: _text(each) for load_id, each in [*noted.items()][-_MOST:]}, file)


def _text(noted: _Noted) -> list[Any]:
    brought = noted.brought and [[at, dict(rows)] for at, rows in noted.brought]
    text: list[Any] = [*(sorted(loads or ()) for loads in noted.earlier), brought]
    return [*text, sorted(noted.meanwhile)] if noted.meanwhile else text


def _read(working_folder: str | Path) -> dict[str, _Noted]:
    path = Path(working_folder, _FILE)
    try:
        return {load_id: _noted(*each) for load_id, each in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        logger.warning(f"{path} cannot be read, and is ignored: {error}")
        return {}


def _noted(
    complete: list[str], audited: list[str], brought: Sequence[Any] | None = (), meanwhile: Sequence[str] = ()
) -> _Noted:
    rows = None if brought is None else tuple(Brought(at, counts) for at, counts in brought)
    return _Noted(Stored(frozenset(complete), frozenset(audited)), rows, frozenset(meanwhile))
