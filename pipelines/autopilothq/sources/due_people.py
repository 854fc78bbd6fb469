"""Chooses, from the people that an origin has found, those whose events are due to be requested from an API."""

import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from ..catalog import PROFILES
from ..errors import InvalidSetting, NotSupported
from ..projection import DuePeople, People
from ..warehouses.dataset import connected
from . import user_hints
from .cursors import MAX_AHEAD
from .dropped import dropped_before
from .origin import LoadContext

_QUERY = re.compile(r"(\s|\(|--.*\n|/\*[\s\S]*?\*/)*+(select|with|from)\s", re.IGNORECASE)
"""How a query begins, perhaps after comments. `*+` prevents backtracking: without it, 20 comments took 6 seconds."""
FoundPeople = (
    Iterable[Sequence[tuple[str, datetime | None]]] | Iterable[Sequence[tuple[str, datetime | None, str | None]]]
)
"""Chunks of people, as `People.add` takes them."""


def due_people(context: LoadContext, key: tuple[str, str], found: FoundPeople, due: DuePeople) -> People:
    """Returns those of the `found` people who are due and not deleted; `key` is as in `People`."""
    pipeline = context.required_pipeline()
    dataset = pipeline.dataset
    scratch = context.scratch / "people"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    people = People(key, str(scratch), context.memory)
    for some in found:
        people.add(some)
    people.leave_out(context.suppressed)
    with connected(dataset):
        exists = dataset.tables([PROFILES.name])
        columns = [column.name for column in PROFILES.columns]
        stored = dataset.read(PROFILES.name, columns) if exists else ()
        people.choose(stored, pipeline.complete_loads, due._replace(latest=context.loaded_at + MAX_AHEAD))
    return people


def dropped_events(context: LoadContext, tables: Collection[str], why: str) -> dict[str, str]:
    """Returns the result of `dropped_before` for the selected tables of events: earlier requests do not count for them.

    Raises NotSupported, with the reason `why`, if dlt is to replace any of them.
    """
    if replaced := user_hints.replaced_resources() & set(tables):
        raise NotSupported(
            f"Expected {min(replaced)} not to be replaced, because {why}.\n"
            'Leave write_disposition out, or read all that it has again: refresh="drop_sources".'
        )
    pipeline = context.required_pipeline()
    return dropped_before(context.selected & set(tables), pipeline.load_id, pipeline.dataset.name)


def is_query(people: str) -> bool:
    """Returns whether a setting names people by a query, not by a file."""
    return _QUERY.match(people) is not None


def lines_of_file(path: Path, what: str) -> Iterator[str]:
    """Yields the lines of a file, without blank ones and byte-order marks.

    Raises InvalidSetting if the file cannot be read as UTF-8; `what` it should contain is part of the error.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            yield from filter(None, (line.lstrip("\ufeff").strip() for line in lines))
    except UnicodeDecodeError as error:
        raise InvalidSetting(f"{path}: expected {what} in UTF-8: {error}") from error
    except OSError as error:
        raise InvalidSetting(
            f"Expected a file with {what}, or a query (SELECT ...), but could not read {path}: {error.strerror}."
        ) from error
