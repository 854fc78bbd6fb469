"""Isolates the rows of a load that the destination refuses, and loads all others.

Senders choose the values of messages, and a destination may refuse a row because of them: it is too big for a page,
violates a user's own constraint or trigger, or has a byte that cannot be read. Then the rows of that table are loaded
in parts, each as a small load of dlt, which works with all destinations. A part that fails is halved, and a row that
fails alone is refused. All other rows are thus stored before their load is complete, like those of a killed load.
"""

import logging
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import dlt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from dlt import Schema
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.sources import DltResource, DltSource

from ..catalog import ACCOUNTS, CURRENT, LATEST, TABLES, USERS, Latest, Type, event_table
from ..display import plural, visible
from ..errors import RunError, causes
from ..projection.types import ARROW
from ..warehouses.dataset import Dataset, open_dataset, placeholders, required_columns, tables_that_hide_rows
from ..warehouses.dlt_internals import NULL_COLLECTOR, FilesystemClient, LoadClientJobException, TWriteDispositionDict
from ..warehouses.dlt_internals.runtime import jobs_tried_once
from ..warehouses.hints import SOURCE, column_hints, keys_are_declared, merge_disposition, merge_strategies, merge_with
from ..warehouses.native import SEGMENT_TABLE_HINT, holds_messages
from .data_errors import is_data, lacks_characters, sqlstate
from .file_rows import FileRows
from .load_folder import handed_over, handed_over_at
from .refused import UUID_TS, RefusedMessages, key
from .unfit import find_unfit, lacking_of, texts_of

SAMPLE = 5  # rows that are tried alone if the error does not show whether rows cause it
MAX_ALL_REFUSED = 3  # up to this many rows may all be refused although the error does not show that rows cause it
IDS_PER_DELETE = 100
MAX_MESSAGE = 500  # characters of an error that are kept

_DUPLICATE = "23505"
_LINKS = ("exception", "dbapi_exception", "__cause__", "__context__")  # from dlt's errors to the driver's
# What PostgreSQL's ADBC driver puts before the server's message.
_DRIVER = re.compile(r"^[A-Z_ ]+: \[libpq\] .*? ERROR:\s+")
_TYPES: dict[pa.DataType, Type] = {of: name for name, of in ARROW.items()} | {pa.timestamp("us"): "timestamp"}


class Cause(NamedTuple):
    """Why a load failed: the table, the error in one line, and whether rows cause it (None if that is unknown).

    `lacks_characters` is whether the encoding of the database lacks a character of theirs.
    """

    load_id: str
    table: str
    message: str
    is_data: bool | None
    lacks_characters: bool = False


class _Part(NamedTuple):
    """The rows of a table from `start` to before `stop`."""

    table: str
    rows: FileRows
    start: int
    stop: int


def refuse_rows(into: dlt.Pipeline, source: DltSource, error: PipelineStepFailed, warn: Callable[[str], None]) -> bool:
    """Finds the rows that made a load of `source` fail, and notes them, so that its next load leaves them out.

    All other rows of all tables are stored, and rows of refused messages are deleted from all tables. `warn` is called
    with a warning for each table that is searched. Returns whether it found new rows: if not, the load failed for
    another reason. Raises the error of a part that fails for another reason than its rows, such as a lost connection or
    a full disk; and RunError if a lake's table requires a column that none of the rows has.
    """
    cause = _cause(into, error)
    rest = {table: FileRows(files) for table, files in handed_over(into).items()}
    if cause is None or cause.is_data is False or cause.table not in rest or rest[cause.table].lack(cause.message):
        return False
    into.abort_packages()  # otherwise dlt would resume this load instead of loading parts
    refused = RefusedMessages.read(into)
    known = len(refused)
    refused.attempts.append(handed_over_at(into).isoformat())
    cause = _refuse_unfit(refused, cause, rest, into, warn)
    load = partial(_load, into, next(iter(source.resources.values())).table_format)
    while cause is not None:
        if cause.table not in rest:
            return False  # a table of dlt's own
        for table in filter(rest.__contains__, _failed_tables(into, cause)):
            rows = rest.pop(table)
            check_required(into, table, rows.files)
            known_cause = cause if table == cause.table and cause.is_data else None
            warn(
                f"The destination refuses rows of {table}: they are looked for among {rows.row_count:,}, and all others"
                f" are loaded. {cause.message if table == cause.table else ''}".rstrip()
            )
            bad = find_refused(rows.row_count, partial(_load_part, load, table, rows), known_cause)
            if bad is None:
                return False
            _note(refused, table, rows, bad)
        # Tables that the load did not reach may have such rows, too: finding them now saves reading all lines again.
        cause = load([_Part(table, rows, 0, rows.row_count) for table, rows in rest.items()]) if rest else None
    if len(refused) == known:
        return False
    _take_back(into, refused)
    refused.write(into)
    return True


def find_refused(
    row_count: int, load: Callable[[int, int], Cause | None], cause: Cause | None = None
) -> dict[int, Cause] | None:
    """Loads `row_count` rows; returns those that cannot be loaded, by number, with their causes.

    `load(start, stop)` loads the rows from `start` to before `stop`, and returns why it could not, or None. `cause` is
    why all of them together could not be loaded, if known. Returns None if rows do not seem to cause the error: it does
    not show that they do, and none of a sample of rows can be loaded alone.

    Example: `find_refused(4, lambda start, stop: cause if start <= 2 < stop else None) == {2: cause}`.
    """
    cause = cause or load(0, row_count)
    if cause is None:
        return {}
    if cause.is_data is None and row_count > MAX_ALL_REFUSED:
        some = secrets.SystemRandom().sample(range(row_count), min(row_count, SAMPLE))
        if all(load(row, row + 1) for row in some):
            return None
    bad: dict[int, Cause] = {}
    suspects = [(0, row_count, cause)]
    while suspects:
        start, stop, cause = suspects.pop()
        if stop - start == 1:
            bad[start] = cause
            continue
        middle = (start + stop) // 2
        left = load(start, middle)
        # If the first half is good, the second one is bad; a single row is still loaded, to get its own error.
        right = load(middle, stop) if left or stop - middle == 1 else cause
        suspects += [(start, middle, left)] if left else []
        suspects += [(middle, stop, right)] if right else []
    return bad


def check_required(into: dlt.Pipeline, table: str, files: Sequence[Path]) -> None:
    """Raises RunError if a lake's table requires a column that none of these Parquet files has.

    The errors of the library name no column, and would look like those of single rows.
    """
    client = into.destination_client()
    if not isinstance(client, FilesystemClient):
        return
    loaded = {column for file in files for column in pq.read_schema(file).names}
    for column in required_columns(client, table):
        if column not in loaded:
            raise RunError(
                f"Expected nulls to be allowed in the column {visible(column)} of {table}, which no message has, but"
                " somebody made it required.\nAllow them (ALTER TABLE ... ALTER COLUMN ... DROP NOT NULL), or drop the"
                " column. Nothing of it counts as loaded."
            )


# ---- one load of some rows -------------------------------------------------------------------------------------------


def _load(into: dlt.Pipeline, table_format: Any, parts: Sequence[_Part]) -> Cause | None:
    """Loads some rows in a load of their own; returns why it failed, or None if it succeeded."""
    resources = [_resource(into, part, table_format) for part in parts]
    try:
        with _quietly(into):
            into.run(DltSource(Schema(SOURCE), SOURCE, resources))
    except PipelineStepFailed as error:
        into.abort_packages()
        cause = _cause(into, error)
        if cause is None or cause.is_data is False:
            raise
        return cause
    return None


def _load_part(
    load: Callable[[Sequence[_Part]], Cause | None], table: str, rows: FileRows, start: int, stop: int
) -> Cause | None:
    return load([_Part(table, rows, start, stop)])


def _resource(into: dlt.Pipeline, part: _Part, table_format: Any) -> DltResource:
    """Returns a resource that yields some rows of a table, with the hints that a load gives them."""
    table = TABLES.get(part.table) or event_table(part.table)
    # A load decides the columns of a table once, even with workers, so all files of the table have the same columns.
    schema = pq.read_schema(part.rows.files[0])
    types = {field.name: _TYPES[field.type] for field in schema}
    zoned = pa.timestamp("us") not in schema.types
    resource = dlt.resource(
        part.rows.between(part.start, part.stop),
        name=part.table,
        primary_key=table.key,
        columns=column_hints(table, types, keys_are_declared(into), zoned),
        write_disposition=_disposition(into, part.table, table_format),
        table_format=table_format,
        file_format="parquet",
    )
    resource.apply_hints(additional_table_hints={SEGMENT_TABLE_HINT: True})
    return resource


def _disposition(into: dlt.Pipeline, table: str, table_format: Any) -> TWriteDispositionDict:
    if TABLES.get(table) in CURRENT:
        return merge_with("delete-insert")  # the usual one would replace the whole table with a part
    return merge_disposition(table, merge_strategies(into, table_format))


@contextmanager
def _quietly(into: dlt.Pipeline) -> Iterator[None]:
    """Keeps dlt from retrying and logging failures, which are expected here."""
    collector = into.collector
    log = logging.getLogger("dlt")
    level = log.level
    into.collector = NULL_COLLECTOR
    log.setLevel(logging.CRITICAL)
    try:
        with jobs_tried_once():
            yield
    finally:
        log.setLevel(level)
        into.collector = collector


# ---- why it failed ---------------------------------------------------------------------------------------------------


def _cause(into: dlt.Pipeline, error: PipelineStepFailed) -> Cause | None:
    """Returns why a load failed, or None if no job of it failed."""
    job = next((found for found in causes(error, *_LINKS) if isinstance(found, LoadClientJobException)), None)
    if job is None:
        return None
    chain = list(causes(job.client_exception, *_LINKS))
    text = next(iter(str(chain[0]).strip().splitlines()), type(chain[0]).__name__) if chain else job.failed_message
    message = _DRIVER.sub("", text)[:MAX_MESSAGE]
    table, caused_by_rows = job.job_id.partition(".")[0], is_data(chain)
    if any(sqlstate(found) == _DUPLICATE for found in chain) and table in tables_that_hide_rows(open_dataset(into)):
        caused_by_rows = False  # no merge can replace a row that the database's user cannot see
    return Cause(job.load_id, table, message, caused_by_rows, lacks_characters(chain))


def _failed_tables(into: dlt.Pipeline, cause: Cause) -> list[str]:
    """Returns the tables whose jobs failed, the cause's first."""
    failed = into.get_load_package_info(cause.load_id).jobs.get("failed_jobs", [])
    return list(dict.fromkeys([cause.table, *(job.job_file_info.table_name for job in failed)]))


# ---- the consequences for the next load ------------------------------------------------------------------------------


def _note(refused: RefusedMessages, table: str, rows: FileRows, causes: Mapping[int, Cause]) -> None:
    """Notes what the next load leaves out because of rows that are refused."""
    bad = [
        (rows.at(number), f"its row of {table} is refused by the destination: {cause.message}")
        for number, cause in causes.items()
    ]
    if table in (USERS.name, ACCOUNTS.name):
        _errors_of(refused, table).update({row["id"]: error for row, error in bad})
    elif holds_messages(table):
        refused.messages |= {row["id"]: error for row, error in bad}
    else:
        columns = TABLES[table].key
        refused.add_rows(table, {key([row[column] for column in columns]): error for row, error in bad})


def _refuse_unfit(
    refused: RefusedMessages,
    cause: Cause,
    rest: Mapping[str, FileRows],
    into: dlt.Pipeline,
    warn: Callable[[str], None],
) -> Cause | None:
    """Notes all rows with characters that the encoding of the database lacks, if that is the cause.

    Returns the cause if rows are still to be looked for, otherwise None. Rows of users and accounts are not noted: they
    get their texts from such messages, and are made again without them. Texts of the books are loaded with escapes.
    """
    if not cause.lacks_characters:
        return cause
    known = len(refused)
    tables = {table: rows for table, rows in rest.items() if table not in (USERS.name, ACCOUNTS.name)}
    lacking = lacking_of(open_dataset(into), texts_of(tables))
    if lacking is None:
        return cause
    refused.encoding = lacking.encoding
    for table, unfit in find_unfit(tables, lacking):
        _note(refused, table, rest[table], {row: cause._replace(message=why) for row, why in unfit.items()})
        rows = plural(len(unfit), "row")
        warn(f"The destination refuses {rows} of {table}: {lacking.encoding}, its encoding, lacks characters.")
    return cause if len(refused) == known else None


def _errors_of(refused: RefusedMessages, table: str) -> dict[str, str]:
    """Returns the errors of refused rows of `users` or `accounts`, tables that are made of messages."""
    return refused.users if table == USERS.name else refused.accounts


def _take_back(into: dlt.Pipeline, refused: RefusedMessages) -> None:
    """Deletes the rows of refused messages that the failed loads stored, and rows of users and accounts made of them.

    The next load makes the rows of these users and accounts again.
    """
    files = handed_over(into)
    messages = list(refused.messages)
    again: dict[str, list[str]] = {}
    for made in LATEST:
        more, again[made.table.name] = _messages_of(made, FileRows(files.get(made.messages.name, ())), refused)
        messages += more
    ids = {table: messages for table in files if holds_messages(table)} | again
    dataset = open_dataset(into)
    existing = dataset.tables(list(ids))
    since = datetime.fromisoformat(refused.attempts[0]) - timedelta(milliseconds=1)  # some keep only milliseconds
    lacking = lacking_of(dataset, ids.values()) if refused.encoding else None  # no statement can have such an id
    for table in existing:
        _delete(dataset, table, [id_ for id_ in ids[table] if not (lacking and lacking.first(id_))], since)


def _messages_of(made: Latest, messages: FileRows, refused: RefusedMessages) -> tuple[list[str], list[str]]:
    """Returns the ids of messages with refused users (accounts), and of users (accounts) with refused messages."""
    ids = pa.array(refused.messages, pa.string())
    bad = pa.array(_errors_of(refused, made.table.name), pa.string())
    more: list[str] = []
    again: list[str] = []
    for part in messages.between(0, messages.row_count):
        more += part.filter(pc.is_in(part[made.key], bad))["id"].to_pylist()
        again += part.filter(pc.is_in(part["id"], ids))[made.key].drop_null().to_pylist()
    return more, again


def _delete(dataset: Dataset, table: str, ids: Sequence[str], since: datetime) -> None:
    """Deletes the rows with one of these ids that were stored at `since` or later."""
    id_, stored_at = (dataset.quoted(table, column) for column in ("id", UUID_TS))
    for start in range(0, len(ids), IDS_PER_DELETE):
        some = ids[start : start + IDS_PER_DELETE]
        dataset.delete(table, f"{id_} IN ({placeholders(some)}) AND {stored_at} >= %s", [*some, since])
