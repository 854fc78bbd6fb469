"""Records which complete loads a load was read after: its rows leave out what was stored by then.

dlt may load them much later, after the dataset was restored from a backup or dropped, or into another dataset. What
they leave out is missing there, although dlt completes the load. Such a load must not count as complete.
"""

import json
from collections.abc import Set as AbstractSet
from pathlib import Path

import dlt

from .. import disk, private
from ..warehouses.dlt_internals import logger

_FILE = "autopilothq-loads/earlier.json"  # below the pipeline's working folder, because what waits is there, too
_MOST = 20  # loads that are kept: hardly more can wait


def note_earlier(pipeline: dlt.Pipeline, load_id: str, complete: AbstractSet[str]) -> None:
    """Records that a load was read after the loads `complete`; loads that are complete and lack nothing are forgotten.

    All of them, because none is surely the last one: ids are times, and another machine's clock may be wrong.
    """
    if not complete:
        return
    path = Path(pipeline.working_dir, _FILE)
    kept = {of: earlier for of, earlier in _read(path).items() if of not in complete or not earlier <= complete}
    noted = [(of, sorted(earlier)) for of, earlier in {**kept, load_id: complete}.items()]
    private.folder(path.parent)
    with disk.rewriting(path, "w") as file:
        json.dump(dict(noted[-_MOST:]), file)


def outdated_loads(pipeline: dlt.Pipeline, complete: AbstractSet[str]) -> set[str]:
    """Returns which of a dataset's complete loads lack rows, because loads that they were read after are not there.

    Example: `outdated_loads(pipeline, {"2.0"}) == {"2.0"}` if load 2.0 was read after 1.0.
    """
    noted = _read(Path(pipeline.working_dir, _FILE))
    return {load_id for load_id, earlier in noted.items() if load_id in complete and not earlier <= complete}


def _read(path: Path) -> dict[str, AbstractSet[str]]:
    try:
        return {load_id: frozenset(earlier) for load_id, earlier in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        logger.warning(f"{path} cannot be read, and is ignored: {error}")
        return {}
