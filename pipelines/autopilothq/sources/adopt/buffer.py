"""Buffers the rows of files and tables in Parquet files of one layout, until all rows are read."""

import gzip
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import IO, NamedTuple

import duckdb
import pyarrow as pa
import zstandard

from ...catalog import LATEST, LOADER_OWN_COLUMNS, MAX_KEYS, MESSAGE_TABLES, RUDDERSTACK_COLUMNS, RUDDERSTACK_MARKS
from ...display import shortened
from ...errors import NotSupported
from ...projection import LINES_PER_FILE, engine
from .avro import AvroTable, opened_avro
from .column_names import csv_names, json_names, own_names, parquet_names
from .columns import CELL_PREFIX, LOST_PREFIX, BufferedTable, Form, LostColumn, RowGroup, as_plain_text, form_of
from .csv_dialect import check_for_headers, csv_in_parts, dialect_of, has_names_as_ids
from .csv_rows import has_null_marks
from .files import COMPRESSIONS, TableFile, folded_name, unreadable_file
from .in_parts import (
    LONGEST_OBJECT,
    UnreadableLine,
    json_in_parts,
    parquet_in_parts,
    write_in_parts,
)
from .json_digits import copied_with_digits, unreadable_line
from .wide_decimals import copied_with_wide_decimals, is_of_disk

_Columns = tuple[tuple[tuple[str, Form], ...], tuple[LostColumn, ...]]
"""The columns of a file with their forms, and the lost ones."""
LATEST_NAMES = frozenset(latest.table.name for latest in LATEST)
OTHER_TABLES = LATEST_NAMES | {table.name for table in MESSAGE_TABLES}  # tables other than those of events
_CHUNK = 8 << 20
ANY_ORDER = "row_number() OVER ()"  # SQL that numbers rows that have no number of their own
_OF_MACHINE = re.compile("Could not write|No space left|Out of Memory")
"""DuckDB's errors about the disk that buffers the rows, or about memory, and not about the file that is read."""
_ZSTD_CHUNK = 1 << 10  # small, because four bytes can hold 128 KiB, which zstd returns at once
_READ_JSON = (
    "read_json({path}, format = 'newline_delimited', maximum_depth = 1, map_inference_threshold = -1,"
    " sample_size = -1, maximum_object_size = {size}, hive_partitioning = false)"
)
KILL_POINT_ROWS_BUFFERED = f"{__name__}:buffer_rows"  # for tests/faults


class BufferedRows(NamedTuple):
    """The buffered rows of a file or table: the table's name, the path of their file, and the forms of the columns.

    `lost` are the columns whose values are discarded.
    """

    table: str
    path: str
    forms: Mapping[str, Form]
    lost: tuple[LostColumn, ...] = ()


class Source(NamedTuple):
    """A source of rows: SQL for the rows (empty if only `in_parts` can read them), and SQL for a row's number.

    `columns` has the forms by the columns' names in the source, each with a template of SQL that converts a value.
    `types` has the types in the source, which CSV files lack. `in_parts` yields SQL for the same rows in parts that
    take little memory; None if they cannot be read in parts. `unfit` has SQL for the text of values that a column's
    form cannot hold, by the column's name.
    """

    sql: str
    row: str
    columns: Mapping[str, tuple[Form, str]]
    types: Mapping[str, str]
    in_parts: Callable[[], Generator[str]] | None = None
    unfit: Mapping[str, str] = MappingProxyType({})

    def cell(self, name: str) -> str:
        """Returns SQL for the value of a column in its form."""
        return self.columns[name][1].format(engine.name(name))


def buffer_rows(con: duckdb.DuckDBPyConnection, source: Source, number: int, table: str, scratch: Path) -> BufferedRows:
    """Writes a source's rows into a Parquet file, with Segment's column names; `number` is its number in the load.

    Raises NotSupported if there is no column `id`, which identifies rows, or if there are more than MAX_KEYS columns.
    """
    names = column_names(source.columns, table)
    if "id" not in names.values():
        found = ", ".join(map(shortened, [*names.values()][:8])) or "none"
        raise NotSupported(
            f"Expected a column id in {table}, which identifies its rows, but its columns are: {found}.\n"
            + ("If these are messages, load them: autopilothq load archive. " if _is_of_messages(names) else "")
            + "Leave that table out: name the others with --table."
        )
    if len(source.columns) > MAX_KEYS:
        raise NotSupported(
            f"Expected at most {MAX_KEYS:,} columns in {table}, but there are {len(source.columns):,}.\n"
            "Leave that table out: name the others with --table."
        )
    forms = {column: source.columns[name][0] for name, column in names.items()}
    cells = {column: source.cell(name) for name, column in names.items()}
    lost = {
        LostColumn(name, source.columns[name][0], column, reason): source.cell(name)
        for name, (column, reason) in lost_columns(source.columns, names).items()
    }
    lost |= {
        LostColumn(name, "text", names[name], "not_a_time"): sql for name, sql in source.unfit.items() if name in names
    }
    if table not in LATEST_NAMES:
        [id_name] = [name for name, column in names.items() if column == "id"]
        text = as_plain_text(forms["id"], f"({cells['id']})")
        not_text = LostColumn(id_name, forms["id"], "id", "not_text")
        lost[not_text] = f"CASE WHEN storable({text}) IS NULL THEN {cells['id']} END"
        cells["id"], forms["id"] = _id_cell(text, cells, table), "text"
    written = {CELL_PREFIX + column: cell for column, cell in cells.items()}
    written |= {f"{LOST_PREFIX}{index}": lost[column] for index, column in enumerate(sorted(lost))}
    select = ", ".join(f"{cell} AS {engine.name(name)}" for name, cell in written.items())
    path = str(scratch / f"buffered-{number}.parquet")
    with engine.memory_for_columns(con, len(cells)):
        _write(con, source, select, number * LINES_PER_FILE, path)
    return BufferedRows(table, path, forms, tuple(sorted(lost)))


def _is_of_messages(names: Mapping[str, str]) -> bool:
    return not {"message_id", "messageid"}.isdisjoint(names.values())


def _write(con: duckdb.DuckDBPyConnection, source: Source, select: str, first: int, path: str) -> None:
    """Writes cells of a source's rows into a file; in parts, if 2,048 rows at once do not fit into memory."""
    # A stream comes in small batches, which the engine must not gather to 2,048 rows again.
    con.execute(f"SET enable_caching_operators = {source.in_parts is not None}")
    try:
        if source.sql:
            con.execute(
                f"COPY (SELECT {first} + {source.row} AS seq, {select} FROM {source.sql})"
                f" TO {engine.literal(path)} ({engine.PARQUET}, ROW_GROUP_SIZE_BYTES {engine.STREAMED})"
            )
            return
    except duckdb.OutOfMemoryException:
        if source.in_parts is None:
            raise
    if source.in_parts is not None:
        with closing(source.in_parts()) as parts:
            write_in_parts(con, parts, f"{ANY_ORDER} AS seq, {select}", first, path)


def lost_columns(columns: Iterable[str], names: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Returns the columns whose values are discarded, each with its name in `_discards` and the reason.

    Columns that are left out on purpose are not among them. `names` is what `column_names` returns.
    """
    taken, lost = set(names.values()), {}
    for name in columns:
        column = folded_name(name)
        same = [called for called in (column, RUDDERSTACK_COLUMNS.get(column)) if called in taken]
        if not column:
            lost[name] = name, "no_column"
        elif name not in names and same:
            lost[name] = same[0], "same_column"
    return lost


def _id_cell(own: str, cells: Mapping[str, str], table: str) -> str:
    """Returns SQL for a row's id, or for a digest of the row if it has no valid id, so that it is stored only once."""
    row = ", ".join(f"({cell})::VARCHAR" for cell in cells.values())
    return f"coalesce(blank_as_null(storable({own})), sha256(to_json([{engine.literal(table)}, {row}])::VARCHAR))"


def column_names(columns: Mapping[str, object], table: str) -> dict[str, str]:
    """Returns Segment's names for a table's columns, by the columns' own names, without the columns that loaders add.

    If several columns get the same name, the one that is spelt exactly like it is kept, otherwise the first.
    RudderStack's columns get Segment's names, too.
    """
    every = {name: folded_name(name) for name in columns}
    folded = dict(sorted(every.items(), key=lambda item: item[0] != item[1]))
    every_column, taken = set(folded.values()), set[str]()
    is_rudderstack = bool(RUDDERSTACK_MARKS & every_column)
    names: dict[str, str] = {}
    for name, own in folded.items():
        called: str | None = own
        if is_rudderstack and own in RUDDERSTACK_COLUMNS:
            called = RUDDERSTACK_COLUMNS[own]
            if called in every_column:
                called = own
        if table in LATEST_NAMES and own == "anonymous_id":
            continue
        if called and called not in LOADER_OWN_COLUMNS and called not in taken:
            names[name] = called
            taken.add(called)
    return names


def buffered_tables(
    buffered: Sequence[BufferedRows], event_table: Callable[[str], str] = str
) -> dict[str, BufferedTable]:
    """Returns the tables with buffered rows, by name. Files with the same columns in the same forms are read together.

    `event_table` returns the destination's name for an event's table, which may be the same for two events.
    """
    groups: dict[str, dict[_Columns, list[str]]] = defaultdict(lambda: defaultdict(list))
    for rows in buffered:
        table = rows.table if rows.table in OTHER_TABLES else event_table(rows.table)
        groups[table][tuple(sorted(rows.forms.items())), rows.lost].append(rows.path)
    return {
        table: BufferedTable(table, [RowGroup(dict(forms), lost, paths) for (forms, lost), paths in found.items()])
        for table, found in groups.items()
    }


# ---- files ---------------------------------------------------------------------------------------------------------


def buffer_file(con: duckdb.DuckDBPyConnection, file: TableFile, number: int, scratch: Path) -> BufferedRows:
    """Buffers the rows of a file. Raises ArchiveError if it cannot be read."""
    with TemporaryDirectory(dir=scratch) as copies:
        local = _local_path(file, Path(copies))
        with raising_archive_error(file, local):
            if file.format == "avro":
                return _buffer_avro(con, local, file, number, scratch)
            source = local_source(con, local, file, Path(copies))
            rows = buffer_rows(con, source, number, file.table, scratch)
            if file.format == "csv" and has_names_as_ids(con, rows.path, source.columns):
                path = engine.glob_literal(str(local))
                check_for_headers(con, path, partial(_contents, local), Path(copies, "few.csv"))
            return rows


def _local_path(file: TableFile, copies: Path) -> Path:
    """Returns the path of a file's content on this machine. Its suffix tells the engine how the file is compressed."""
    path = Path(file.path)
    suffix = path.suffix.lower()
    local = copies / f"table.{file.format}{suffix if suffix in COMPRESSIONS else ''}"  # `path.name` may be too long
    if file.fs is not None:
        file.fs.get_file(file.path, str(local))
    elif path.suffix != suffix:
        local.symlink_to(path.absolute())
    else:
        return path
    return local


@contextmanager
def raising_archive_error(file: TableFile, local: Path | None = None) -> Iterator[None]:
    """Raises ArchiveError in place of errors in the block about the content of a file.

    `local` is a file with this content. If it has JSON lines, it is searched for the broken one, because the engine's
    error has another line number, and the name of a copy.
    """
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except (
        duckdb.Error,
        pa.ArrowException,
        EOFError,
        OSError,
        zlib.error,
        zstandard.ZstdError,
        UnreadableLine,
    ) as error:
        if _is_of_machine(error):
            raise
        broken = None
        if local is not None and file.format == "json" and isinstance(error, duckdb.InvalidInputException):
            broken = unreadable_line(partial(_contents, local))
        raise unreadable_file(file, broken or error) from error


def _is_of_machine(error: Exception) -> bool:
    """Returns whether an error is about this machine, not about a file. Arrow raises DuckDB's errors as its own."""
    return is_of_disk(error) or (
        isinstance(error, duckdb.IOException | OSError) and bool(_OF_MACHINE.search(str(error)))
    )


def local_source(con: duckdb.DuckDBPyConnection, local: Path, file: TableFile, scratch: Path) -> Source:
    """Returns the source for the rows of a file on this machine; a file with nothing but blanks has no rows."""
    if file.format == "parquet":
        return _parquet_source(con, local, scratch)
    if not any(chunk.strip() for chunk in _contents(local)):
        return Source("(SELECT '' AS id WHERE false)", ANY_ORDER, {"id": ("text", "{}")}, {"id": "VARCHAR"})
    if file.format == "csv":
        return _csv_source(con, local, scratch)
    return _json_source(con, local, scratch)


def _json_source(con: duckdb.DuckDBPyConnection, local: Path, scratch: Path) -> Source:
    copy = scratch / "digits.json"
    digits = copied_with_digits(partial(_contents, local), copy)
    local = copy if copy.exists() else local
    read = partial(_READ_JSON.format, path=engine.glob_literal(str(local)))
    sql = read(size=LONGEST_OBJECT)
    types = _types(con, sql)
    if [*types] == ["json"] and (broken := unreadable_line(partial(_contents, local))):
        raise broken
    names = own_names(list(types), partial(json_names, con, local), in_order=False)
    columns = _columns({name: form_of(type_) for name, type_ in types.items()}, names)
    types = {names[name]: type_ for name, type_ in types.items()}
    for text in digits.values():
        del columns[text], types[text]
    for key in digits.keys() & columns.keys():
        columns[key] = "json", f"coalesce(as_text({engine.name(digits[key])}::VARCHAR), {columns[key][1]})"
    return Source(sql, ANY_ORDER, columns, types, partial(json_in_parts, partial(_contents, local), read))


def _columns(forms: Mapping[str, tuple[Form, str]], names: Mapping[str, str]) -> dict[str, tuple[Form, str]]:
    """Returns the forms of columns, with SQL for their values, by the names that the file has for them."""
    return {
        names[read]: (form, template.format(engine.name(read)).replace("{", "{{").replace("}", "}}"))
        for read, (form, template) in forms.items()
    }


def _types(con: duckdb.DuckDBPyConnection, sql: str) -> dict[str, str]:
    return {name: str(type_) for name, type_, *_ in con.execute(f"DESCRIBE FROM {sql}").fetchall()}


def _parquet_source(con: duckdb.DuckDBPyConnection, local: Path, scratch: Path) -> Source:
    copy = scratch / "decimals.parquet"
    wide = copied_with_wide_decimals(local, copy)
    local = copy if wide else local
    read = "read_parquet({}, binary_as_string = true, hive_partitioning = false)"
    path = engine.glob_literal(str(local))
    types = _types(con, read.format(path))
    names = own_names(list(types), partial(parquet_names, local))
    columns = _columns({name: form_of(type_) for name, type_ in types.items()}, names)
    types = {names[name]: type_ for name, type_ in types.items()} | wide
    in_parts = partial(parquet_in_parts, con, local, scratch, read)
    if "file_row_number" in map(str.lower, columns):
        return Source(read.format(path), ANY_ORDER, columns, types, in_parts)
    numbered = read.replace("{}", "{}, file_row_number = true").format(path)
    return Source(numbered, "file_row_number + 1", columns, types, in_parts)


def _csv_source(con: duckdb.DuckDBPyConnection, local: Path, scratch: Path) -> Source:
    path, contents, piece = engine.glob_literal(str(local)), partial(_contents, local), scratch / "few.csv"
    # The engine would not notice that a compressed file is cut off, so it is read to its end.
    null = "\\N" if has_null_marks(contents(), to_end=local.suffix in COMPRESSIONS) else ""
    dialect, at_once = dialect_of(con, path, contents, piece)
    names = own_names(dialect.columns, partial(csv_names, con, dialect.read(path, null, header=False)))
    columns = _columns(dict.fromkeys(dialect.columns, ("loose", dialect.template(null))), names)
    in_parts = partial(csv_in_parts, contents, dialect, null, piece)
    return Source(dialect.read(path, null) if at_once else "", ANY_ORDER, columns, {}, in_parts)


def _contents(path: Path) -> Iterator[bytes]:
    """Yields the content of a file, decompressed. Raises EOFError and others if it is incomplete."""
    with path.open("rb") as opened:
        yield from decompressed_text(opened, path.name)


def decompressed_text(opened: IO[bytes], name: str) -> Iterator[bytes]:
    """Yields an open file's content, decompressed as its name says. Raises EOFError and others if it is cut off."""
    suffix = Path(name).suffix.lower()
    if suffix == ".zst":
        yield from _unzstd(opened)
    elif suffix == ".gz":
        with gzip.open(opened) as lines:
            yield from iter(lambda: lines.read(_CHUNK), b"")
    else:
        yield from iter(lambda: opened.read(_CHUNK), b"")


def _unzstd(compressed: IO[bytes]) -> Iterator[bytes]:
    inflater, whole = zstandard.ZstdDecompressor().decompressobj(), True
    while data := compressed.read(_ZSTD_CHUNK):
        while data:
            yield inflater.decompress(data)
            data, whole = inflater.unused_data, inflater.eof
            if whole:
                inflater = zstandard.ZstdDecompressor().decompressobj()
    if not whole:
        raise EOFError("it ends in the middle of its zstd data")


def avro_source(table: AvroTable) -> Source:
    """Returns the source for the rows of a table that is registered as `avro_rows`."""
    columns = {name: (column.form, column.template) for name, column in table.columns.items()}
    return Source("avro_rows", ANY_ORDER, columns, {name: c.sql for name, c in table.columns.items()})


def _buffer_avro(
    con: duckdb.DuckDBPyConnection, local: Path, file: TableFile, number: int, scratch: Path
) -> BufferedRows:
    with local.open("rb") as opened, opened_avro(opened, file) as table, engine.registered(con, avro_rows=table.rows):
        return buffer_rows(con, avro_source(table), number, file.table, scratch)
