"""A run over the people of an account of Ortto, and what is kept of it so that another load can continue it.

A run begins with the search for people, and ends when everybody who was found has been asked for. It may take many
loads, in many processes. On this machine, its folder has the people who were found and the answers that are not loaded
yet; in the destination, dlt's state has how far complete loads came.
"""

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from ... import disk, private
from ...utc import format_time
from ..cursors import read_cursor, write_cursor
from ..spool import ScanStart, Spool

RUN_FOLDER = "autopilothq-ortto"  # the folder of runs, below the pipeline's own
RETENTION_DAYS = 90  # how long an account keeps activities, unless it says otherwise
_MAX_RUN_AGE = timedelta(days=RETENTION_DAYS / 2)  # an older run is not continued: activities of its people are gone
TIMES_LAG = timedelta(hours=1)  # how far a person's times of last activities may lag behind
_CURSORS = "ortto"  # in dlt's state of the source
_START = "run.json"


class RunStart(NamedTuple):
    """When a run began, and `since` when activity counts, which is None if no run was complete before.

    Both are RFC 3339. `account` is a digest that identifies the account, `way` is how people are found.
    """

    account: str
    begun: str
    since: str | None = None
    way: str | None = None


class RunKey(NamedTuple):
    """What distinguishes runs: digests of the account (`account`), and of what is asked for and whom (`name`).

    `alike` are the names of runs that ask the same about at least the same people: what they loaded counts here too.
    """

    account: str
    name: str
    alike: tuple[str, ...] = ()


@dataclass
class Run:
    """A run, new or continued. `cursor` is how far complete loads brought the last run; empty if there are none."""

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
        """Whether complete loads belong to this run already."""
        return bool(self.cursor) and self.cursor["begun"] == self.start.begun

    @property
    def loaded_segment(self) -> int:
        """The last segment of answers that complete loads have loaded; 0 for none."""
        return int(self.cursor["segment"]) if self.is_continued else 0

    @property
    def retention_days(self) -> int:
        """How many days the account keeps activities, if a complete load found it out, else the default."""
        return int(self.cursor.get("retention") or RETENTION_DAYS)

    def go(self, way: str) -> None:
        """Keeps the way in which people are found from now on."""
        self.start = self.start._replace(way=way)
        _write_start(self.folder, self.start)

    def spool(self, name: str) -> Spool:
        """Returns the spool of a way on this machine, or a new one."""
        folder = self.folder / name
        return Spool.open(folder) or Spool.begin(folder, self.scan_start)

    @property
    def scan_start(self) -> ScanStart:
        """Where a spool of this run begins."""
        return ScanStart(self.start.account, self.start.begun)

    def write_cursor(self, load_id: str, segment: int, complete: bool, retention: int | None) -> None:
        """Keeps how far the run is once the load `load_id` is complete."""
        if self.cursor:
            # It counts if that load never becomes complete.
            write_cursor(_CURSORS, _before(self.key.name), self.cursor)
        cursor = self.start._asdict() | {
            "complete": complete,
            "segment": segment,
            "retention": retention or self.cursor.get("retention"),
            "load_id": load_id,
        }
        write_cursor(_CURSORS, self.key.name, cursor)


def begin_run(home: Path, key: RunKey, now: datetime, complete_loads: set[str]) -> Run:
    """Returns the run that is under way, on this machine or another, or a new one. `home` is the folder of all runs."""
    folder = home / key.name
    cursor = _cursor(key.name, complete_loads)
    found = _read_start(folder)
    if found and found.account == key.account and _goes_on(found, cursor, now):
        return Run(key, folder, found, cursor)
    shutil.rmtree(folder, ignore_errors=True)
    start = RunStart(key.account, format_time(now), _last_complete(key, cursor, complete_loads))
    if cursor and not cursor["complete"]:
        continued = RunStart(*(cursor[name] for name in RunStart._fields))
        start = continued if _age(continued, now) < _MAX_RUN_AGE else start
    _write_start(folder, start)
    return Run(key, folder, start, cursor)


def _goes_on(start: RunStart, cursor: dict[str, Any], now: datetime) -> bool:
    """Returns whether the run in a folder is under way: not complete, too old, or overtaken by another one."""
    overtaken = bool(cursor) and (cursor["begun"], cursor["complete"]) > (start.begun, False)
    return not overtaken and _age(start, now) < _MAX_RUN_AGE


def _age(start: RunStart, now: datetime) -> timedelta:
    return now.astimezone(UTC) - datetime.fromisoformat(start.begun)


def _cursor(name: str, complete_loads: set[str]) -> dict[str, Any]:
    of = read_cursor(_CURSORS, name, complete_loads)
    return of or read_cursor(_CURSORS, _before(name), complete_loads)


def _before(name: str) -> str:
    return f"{name} before"


def _last_complete(key: RunKey, cursor: dict[str, Any], complete_loads: set[str]) -> str | None:
    """Returns when the last complete run began, of this kind or of one that asks for more people."""
    others = [_cursor(name, complete_loads) for name in key.alike]
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
