"""A run over the people of an account of Ortto, and its state, from which another load can continue it.

A run begins with the search for people, and ends when the activities of everybody who was found were requested. It may
take many loads, in many processes. On this machine, its folder has the people who were found and the responses that are
not loaded yet; in the destination, dlt's state has how far complete loads got.
"""

import json
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from ... import disk, private
from ...utc import format_time
from ..cursors import MAX_AHEAD, read_cursor, write_cursor
from ..spool import ScanStart, Spool

RUN_FOLDER = "autopilothq-ortto"  # the folder of runs, in the pipeline's working folder
RETENTION_DAYS = 90  # days that an account keeps activities, unless a response has another number
_MAX_RUN_AGE = timedelta(days=RETENTION_DAYS / 2)  # an older run is not continued: some of its activities are gone
TIMES_LAG = timedelta(hours=1)  # how far a person's times of last activities may lag behind
_CURSORS = "ortto"  # the key of the cursors in dlt's state of the source
_START = "run.json"


class RunStart(NamedTuple):
    """The beginning of a run: `begun` is when it began, `since` when the last complete run did; both are RFC 3339.

    `since` is None if there was no complete run. `account` is a digest that identifies the account, `way` is how people
    are found (a key of `search.WAYS`).
    """

    account: str
    begun: str
    since: str | None = None
    way: str | None = None


class RunKey(NamedTuple):
    """What distinguishes runs: digests of the account (`account`), and of the scope and the people (`name`).

    `covering` are the names of runs of the same scope and at least the same people: what they loaded counts here, too.
    """

    account: str
    name: str
    covering: tuple[str, ...] = ()


@dataclass
class Run:
    """A run, new or continued. `cursor` is what complete loads left of the last run; empty if there is none."""

    key: RunKey
    folder: Path
    start: RunStart
    cursor: dict[str, Any]

    @property
    def begun(self) -> datetime:
        """When the run began."""
        return datetime.fromisoformat(self.start.begun)

    @property
    def since(self) -> datetime | None:
        """When the last complete run began; None if there was none."""
        return datetime.fromisoformat(self.start.since) if self.start.since else None

    @property
    def is_continued(self) -> bool:
        """Whether this run has complete loads already."""
        return bool(self.cursor) and self.cursor["begun"] == self.start.begun

    @property
    def loaded_segment(self) -> int:
        """The number of the last segment of responses that complete loads have loaded; 0 for none."""
        return int(self.cursor["segment"]) if self.is_continued else 0

    @property
    def retention_days(self) -> int:
        """How many days the account keeps activities, as found out by a complete load, or the default."""
        return int(self.cursor.get("retention") or RETENTION_DAYS)

    def set_way(self, way: str) -> None:
        """Sets the way in which people are found, and stores it."""
        self.start = self.start._replace(way=way)
        _write_start(self.folder, self.start)

    def spool(self, name: str) -> Spool:
        """Returns this machine's spool for one way to find people, or a new one."""
        folder = self.folder / name
        return Spool.open_or_begin(folder, ScanStart(self.start.account, self.start.begun))

    def write_cursor(self, load_id: str, segment: int, complete: bool, retention: int | None) -> None:
        """Stores how far the run got; the cursor counts once the load `load_id` is complete."""
        cursor = self.start._asdict() | {
            "complete": complete,
            "segment": segment,
            "retention": retention or self.cursor.get("retention"),
            "load_id": load_id,
        }
        write_cursor(_CURSORS, self.key.name, cursor, self.cursor)


def drop_runs(home: Path, account: str) -> None:
    """Deletes what this machine has of an account's runs. `home` is the folder of all runs."""
    for file in home.glob(f"*/{_START}"):
        start = _read_start(file.parent)
        if start and start.account == account:
            shutil.rmtree(file.parent, ignore_errors=True)


def begin_run(home: Path, key: RunKey, now: datetime, complete_loads: Collection[str]) -> Run:
    """Returns the run that is under way on this machine or another, or a new one. `home` is the folder of all runs."""
    folder = home / key.name
    cursor = read_cursor(_CURSORS, key.name, complete_loads, now)
    last = _last_complete(key, cursor, complete_loads, now)
    found = _read_start(folder)
    if found and found.account == key.account and _is_under_way(found, cursor, last, now):
        return Run(key, folder, found, cursor)
    shutil.rmtree(folder, ignore_errors=True)
    start = RunStart(key.account, format_time(now), last)
    if cursor and not cursor["complete"]:
        continued = RunStart(*(cursor[name] for name in RunStart._fields))
        start = continued if _age(continued, now) < _MAX_RUN_AGE else start
    _write_start(folder, start)
    return Run(key, folder, start, cursor)


def _is_under_way(start: RunStart, cursor: dict[str, Any], last: str | None, now: datetime) -> bool:
    """Returns whether the run in a folder is under way: not complete, not too old, not overtaken by another one.

    A run that only looks for people who were active since an earlier run is not under way if this dataset does not have
    that earlier run, because it was dropped or is another one. `last` is when the last complete run began.
    """
    overtaken = bool(cursor) and (cursor["begun"], cursor["complete"]) > (start.begun, False)
    has_gap = (start.since or "") > (last or "")
    return not overtaken and not has_gap and -MAX_AHEAD <= _age(start, now) < _MAX_RUN_AGE


def _age(start: RunStart, now: datetime) -> timedelta:
    return now.astimezone(UTC) - datetime.fromisoformat(start.begun)


def _last_complete(key: RunKey, cursor: dict[str, Any], complete_loads: Collection[str], now: datetime) -> str | None:
    """Returns when the last complete run began that had this key or one that covers it; None if there was none."""
    others = [read_cursor(_CURSORS, name, complete_loads, now) for name in key.covering]
    begun = [each["begun"] if each["complete"] else each["since"] for each in (cursor, *others) if each]
    return max(filter(None, begun), default=None)


def _read_start(folder: Path) -> RunStart | None:
    try:
        return RunStart(**json.loads((folder / _START).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _write_start(folder: Path, start: RunStart) -> None:
    private.folder(folder)
    with disk.rewriting(folder / _START, "w") as file:
        json.dump(start._asdict(), file)
