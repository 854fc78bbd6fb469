"""Records which complete loads a load was read after: its rows leave out what was stored by then.

dlt may load them much later, after the dataset was restored from a backup or dropped, after another machine replaced
its rows, or into another dataset. What they leave out is missing there, although dlt completes the load. Such a load
must not count as complete.
"""

import json
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple

import dlt

from .. import disk, private
from ..warehouses.dlt_internals import logger

_FILE = "autopilothq-loads/earlier.json"  # below the pipeline's working folder, because what waits is there, too
_MOST = 20  # loads that are kept: hardly more can wait


class Stored(NamedTuple):
    """The complete loads of a dataset, and those of them that loaded files according to `_audit`.

    Loads of APIs do not look them up: `audited` is None.
    """

    complete: AbstractSet[str]
    audited: AbstractSet[str] | None = None

    def lacks(self, earlier: "Stored") -> bool:
        """Returns whether the dataset was restored or dropped since, or all that `_audit` had was replaced or deleted.

        Single loads may leave `_audit`: later ones take over their files.
        """
        if earlier.audited and self.audited is not None and self.audited.isdisjoint(earlier.audited):
            return True
        return not earlier.complete <= self.complete

    def shows(self, earlier: "Stored") -> bool:
        """Returns whether it shows that the dataset has all of an earlier state."""
        return not self.lacks(earlier) and (self.audited is not None or not earlier.audited)

    def joined(self, other: "Stored") -> "Stored":
        """Returns the loads of both."""
        return Stored(self.complete | other.complete, (self.audited or frozenset()) | (other.audited or frozenset()))


def note_earlier(pipeline: dlt.Pipeline, load_id: str, earlier: Stored, now: Stored) -> None:
    """Records that a load was read after the loads `earlier`, of those that are stored `now`.

    All of them, because none is surely the last one: ids are times, and another machine's clock may be wrong. Several
    sources may share a load. Loads that are complete and lack nothing are forgotten.
    """
    if not earlier.complete:
        return
    path = Path(pipeline.working_dir, _FILE)
    kept = {of: each for of, each in _read(path).items() if of not in now.complete or not now.shows(each)}
    if load_id in kept:
        earlier = earlier.joined(kept.pop(load_id))
    noted = [(of, [sorted(loads or ()) for loads in each]) for of, each in {**kept, load_id: earlier}.items()]
    private.folder(path.parent)
    with disk.rewriting(path, "w") as file:
        json.dump(dict(noted[-_MOST:]), file)


def outdated_loads(pipeline: dlt.Pipeline, now: Stored) -> set[str]:
    """Returns which of a dataset's complete loads lack rows, because loads that they were read after are not there.

    Example: `outdated_loads(pipeline, Stored({"2.0"})) == {"2.0"}` if load 2.0 was read after 1.0.
    """
    noted = _read(Path(pipeline.working_dir, _FILE))
    return {load_id for load_id, earlier in noted.items() if load_id in now.complete and now.lacks(earlier)}


def _read(path: Path) -> dict[str, Stored]:
    try:
        return {load_id: Stored(*map(frozenset, each)) for load_id, each in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        logger.warning(f"{path} cannot be read, and is ignored: {error}")
        return {}
