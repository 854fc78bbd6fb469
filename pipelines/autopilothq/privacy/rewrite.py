"""Removes the bytes that a database keeps of deleted rows.

A deleted row is no longer visible, but its bytes remain: DuckDB frees blocks without overwriting them, PostgreSQL keeps
dead rows until they are vacuumed, Delta tables keep old versions, and services keep old data for some days. A DuckDB
file is rewritten next to the old one and replaces it in one step; PostgreSQL does the same for each table by VACUUM
FULL; for Delta tables, old versions are removed.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

import dlt
import duckdb

from .. import disk
from ..catalog import LOCKS
from ..display import plural
from ..errors import RunError
from ..projection import engine as values
from ..warehouses import duckdb_parts as parts
from ..warehouses.books import BooksSqlClient
from ..warehouses.dataset import DeltaDataset, drop_old_versions, tables_of
from ..warehouses.dlt_internals import FilesystemClient
from ..warehouses.resolve import DUCKDB_CONFIG
from ..warehouses.sql_files import sql_file

NEW = "new.duckdb"
MARGIN = 1.1  # a copy can be a little bigger than the original
KILL_POINT_VERSIONS_DROPPED = f"{__name__}:drop_old_versions"  # for tests/faults
# Why the bytes of removed rows remain, by dlt's name of the destination.
KEPT = {
    "athena": "Athena keeps old versions of an Iceberg table until VACUUM removes them",
    "bigquery": "BigQuery keeps them for its time travel (7 days unless set to fewer) and 7 days more as fail-safe",
    "clickhouse": "ClickHouse keeps them until it merges their parts: ALTER TABLE ... APPLY DELETED MASK has it do so",
    "databricks": "Databricks keeps them until REORG TABLE ... APPLY (PURGE), and VACUUM after its retention",
    "duckdb": "DuckDB frees their blocks without overwriting them: `forget --rewrite` writes a new file",
    "filesystem": "Delta Lake keeps them in old versions of its tables: `forget --rewrite` removes these",
    "ducklake": "DuckLake keeps them until its old snapshots expire and their files are cleaned up",
    "motherduck": "MotherDuck keeps them in snapshots as long as these are set to stay, and 7 days more as failsafe",
    "postgres": "PostgreSQL keeps them in its files: `forget --rewrite` vacuums all tables (VACUUM FULL)",
    "redshift": "Redshift keeps them until VACUUM DELETE ONLY ... TO 100 PERCENT, and in snapshots of the cluster",
    "snowflake": "Snowflake keeps them for its Time Travel (1 day unless set otherwise) and 7 days more as Fail-safe",
}
OTHERS = "it may keep them in free space, in old versions and in backups, by rules of its own"
_FOREIGN_KEYS_SQL = """
    SELECT 'the foreign key of', concat_ws('.', schema_name, table_name) FROM duckdb_constraints()
    WHERE database_name = ? AND constraint_type = 'FOREIGN KEY'"""


class Rewritten(NamedTuple):
    """What was rewritten, what was not and why, and, if any may remain, a sentence on the bytes of deleted rows."""

    done: list[str]
    left: dict[str, str]
    remains: str | None


def remains(into: dlt.Pipeline) -> str:
    """Returns a sentence on where the bytes of deleted rows remain in this destination."""
    kind = _kind(into)
    why = KEPT.get(kind, f"{kind}: {OTHERS}")
    file = _file(into)
    return f"The removed rows may still be in {file or 'its storage'}. {why}."


def check_rewritable(into: dlt.Pipeline) -> None:
    """Raises RunError if not everything can be rewritten, or there is no room for it; changes nothing."""
    kind, file = _kind(into), _file(into)
    if kind in ("postgres", "filesystem"):
        return
    if kind != "duckdb" or file is None:
        why = KEPT.get(kind, OTHERS) if kind != "duckdb" else "it is not a file"
        raise RunError(
            f"--rewrite can do nothing in {kind}: {why}.\n"
            "Leave it out; docs/how-to/forget.md says what keeps removed rows there, and for how long."
        )
    path = os.path.realpath(file)
    if os.stat(path).st_nlink > 1:
        raise RunError(
            f"{path} has another name as well (a hard link), which would keep the old file.\n"
            "Remove that name, then run this again."
        )
    _check_room(path)
    with TemporaryDirectory() as folder, _opened(into, file, folder) as (engine, old, new):
        _check_copy(engine, old, new, file)


def rewrite(into: dlt.Pipeline) -> Rewritten:
    """Rewrites the whole DuckDB file, or all tables of the dataset in PostgreSQL or a lake.

    The caller must hold the dataset's lock, and have no open connection to the file. Whenever the program ends, the
    file is the complete old one or the complete new one. Raises RunError if the copy differs from the original.
    """
    file = _file(into)
    if file is None:
        return _drop_old_versions(into) if _kind(into) == "filesystem" else _vacuum(into)
    clear(into)
    path = os.path.realpath(file)
    if os.path.exists(f"{file}.wal"):
        with duckdb.connect(file) as writer:
            writer.execute("FORCE CHECKPOINT")
    with _folder(path) as folder, _opened(into, file, folder) as (engine, old, new):
        if log := next(filter(os.path.exists, {f"{file}.wal", f"{path}.wal"}), None):
            raise RunError(f"{log} is still there, so {file} was not rewritten: another program has it open.")
        engine.execute(_copy_schema(old, new))
        for table in _tables_in(engine, old):
            _copy_rows(engine, _qualified(old, *table), _qualified(new, *table))
        _check_identical(engine, old, new, file)
        engine.execute(f"CHECKPOINT {values.name(new)}")
        engine.execute(f"DETACH {values.name(new)}")
        # Nobody else can write to the old file until this connection is closed.
        _swap(os.path.join(folder, NEW), path)
    return Rewritten([file], {}, None)


def clear(into: dlt.Pipeline) -> None:
    """Removes the remains of an unfinished copy, and the temporary files of a killed DuckDB process."""
    file = _file(into)
    if file is not None:
        shutil.rmtree(_folder_of(os.path.realpath(file)), ignore_errors=True)
        shutil.rmtree(f"{file}.tmp", ignore_errors=True)


def _kind(into: dlt.Pipeline) -> str:
    return str(into.destination_client().config.destination_type.rpartition(".")[2])


def _file(into: dlt.Pipeline) -> str | None:
    """Returns the path of the DuckDB file, or None for another destination or a database without a local file."""
    if _kind(into) != "duckdb":
        return None
    database = str(getattr(into.destination_client().config.credentials, "database", ""))
    return database if os.path.isfile(database) else None


# ---- a DuckDB file ---------------------------------------------------------------------------------------------------


def _folder_of(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.rewrite")


@contextmanager
def _folder(path: str) -> Iterator[str]:
    """Yields a new folder next to the file, which only its owner can enter, and removes it afterwards."""
    folder = _folder_of(path)
    os.mkdir(folder, 0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _opened(into: dlt.Pipeline, file: str, folder: str) -> Iterator[tuple[duckdb.DuckDBPyConnection, str, str]]:
    """Yields a DuckDB connection to the file, which is locked against writers, and to an empty file of the same format.

    Also yields the names of both databases. The old one keeps its usual name, because views may refer to it. The
    connection has the destination's memory limit.
    """
    credentials: Any = into.destination_client().config.credentials
    memory = "memory_limit"
    config: dict[str, Any] = {
        **DUCKDB_CONFIG,
        memory: (credentials.global_config or {}).get(memory, DUCKDB_CONFIG[memory]),
        "preserve_insertion_order": True,
        "temp_directory": os.path.join(folder, "spilled"),
        **parts.EARLY_CHECKPOINTS,
    }
    with duckdb.connect(config=config) as engine:
        # The database in memory must not have the file's name, and no file has a slash in its name.
        engine.execute("""ATTACH ':memory:' AS "/"; USE "/"; DETACH memory""")
        before = _databases(engine)
        engine.execute(f"ATTACH {values.literal(file)} (READ_ONLY)")
        [(old, version)] = [each for each in _databases(engine) if each not in before]
        [(block,)] = engine.execute(
            "SELECT block_size FROM pragma_database_size() WHERE database_name = ?", [old]
        ).fetchall()
        new = f"{old} anew"
        engine.execute(
            f"ATTACH {values.literal(os.path.join(folder, NEW))} AS {values.name(new)}"
            f" (STORAGE_VERSION {values.literal(version.rstrip('+'))}, BLOCK_SIZE {block})"
        )
        yield engine, old, new


def _databases(engine: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    return engine.execute("SELECT database_name, tags['storage_version'] FROM duckdb_databases()").fetchall()


def _check_room(path: str) -> None:
    needed = os.path.getsize(path) * MARGIN
    folder = os.path.dirname(path)
    if not os.access(folder, os.W_OK):
        raise RunError(f"--rewrite needs the right to write into {folder}, where the new file replaces the old one.")
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunError(
            f"--rewrite needs {needed / 1e6:,.1f} MB for a new file next to {path}, but {free / 1e6:,.1f} MB are free."
            "\nMake room on that disk, then run this again."
        )


def _check_copy(engine: duckdb.DuckDBPyConnection, old: str, new: str, file: str) -> None:
    """Raises RunError if DuckDB cannot copy everything in the file."""
    lost = engine.execute(_FOREIGN_KEYS_SQL, [old]).fetchall()
    if not lost:
        engine.execute(_copy_schema(old, new))
        lost = _differences(engine, old, new)
    if lost:
        what = ", ".join(f"{kind} {name}" for kind, name in lost[:5])
        raise RunError(
            f"--rewrite cannot copy all of {file} into a new file (DuckDB's COPY FROM DATABASE): {what}.\n"
            "Nothing was changed. Drop these, or leave out --rewrite and rewrite the file by hand."
        )


def _differences(engine: duckdb.DuckDBPyConnection, old: str, new: str) -> list[tuple[str, str]]:
    """Returns the kinds and names of objects that differ between two databases."""

    def schema(name: str) -> set[tuple[str, str, tuple[str, ...]]]:
        rows = engine.execute(sql_file("schema_duckdb.sql"), {"name": name}).fetchall()
        return {(kind, of, tuple(what)) for kind, of, what in rows}

    return sorted({(kind, of) for kind, of, _ in schema(old) ^ schema(new)})


def _check_identical(engine: duckdb.DuckDBPyConnection, old: str, new: str, file: str) -> None:
    """Raises RunError unless the copy has the same tables, each with as many rows and the same hashes of rows."""
    wrong = _differences(engine, old, new)
    for table in _tables_in(engine, old):
        rows, copied = (_count_and_hash(engine, _qualified(of, *table)) for of in (old, new))
        if rows != copied:
            differs = f"{copied[0]:,}" if copied[0] != rows[0] else "other values"
            wrong.append(("table", f"{'.'.join(table)} ({plural(rows[0], 'row')}, but {differs} in the copy)"))
    if wrong:
        what = ", ".join(f"{kind} {name}" for kind, name in wrong[:5])
        raise RunError(
            f"The copy of {file} differs from it, so the old file stays: {what}.\n"
            "All rows that were to be deleted are deleted. Please report this."
        )


def _copy_schema(old: str, new: str) -> str:
    return f"COPY FROM DATABASE {values.name(old)} TO {values.name(new)} (SCHEMA)"


def _tables_in(engine: duckdb.DuckDBPyConnection, database: str) -> list[tuple[str, str]]:
    sql = "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = ?"
    return engine.execute(sql, [database]).fetchall()


def _qualified(*names: str) -> str:
    return ".".join(map(values.name, names))


def _copy_rows(engine: duckdb.DuckDBPyConnection, old: str, new: str) -> None:
    """Copies the rows of a table into an empty one."""
    columns = list(map(values.name, parts.stored_column_names(_fetch(engine), new)))
    if not _accepts_values(engine, new, columns):  # generated columns
        columns = [column for column in columns if _accepts_values(engine, new, [column])]
    stored = ", ".join(columns)
    for part in parts.split_table(_fetch(engine), old):
        engine.execute(f"INSERT INTO {new} ({stored}) SELECT {stored} FROM {old} WHERE {part}")


def _accepts_values(engine: duckdb.DuckDBPyConnection, table: str, columns: Sequence[str]) -> bool:
    """Returns whether values can be inserted into all of these columns; DuckDB has no other way to find out."""
    listed = ", ".join(columns)
    try:
        engine.execute(f"EXPLAIN INSERT INTO {table} ({listed}) SELECT {listed} FROM {table}")
    except duckdb.BinderException:
        return False
    return True


def _count_and_hash(engine: duckdb.DuckDBPyConnection, table: str) -> tuple[int, int]:
    """Returns the number of rows of a table, and the sum of their hashes."""
    number = hashes = 0
    for part in parts.split_table(_fetch(engine), table):
        sql = f'SELECT count(*), coalesce(sum(hash("a row")::HUGEINT), 0) FROM {table} AS "a row" WHERE {part}'
        [(some, of_some)] = engine.execute(sql).fetchall()
        number, hashes = number + some, hashes + of_some
    return number, hashes


def _fetch(engine: duckdb.DuckDBPyConnection) -> Callable[[str], Any]:
    return lambda sql: engine.execute(sql).fetchall()


def _swap(new: str, path: str) -> None:
    """Replaces the old file with the new one."""
    if os.path.exists(f"{new}.wal"):
        raise RunError(f"{path} was not rewritten: DuckDB did not finish the new file.")
    disk.sync(new)
    disk.replace(new, path)


# ---- a lake ----------------------------------------------------------------------------------------------------------


def _drop_old_versions(into: dlt.Pipeline) -> Rewritten:
    """Removes all versions of each Delta table except the newest.

    All tables are included, because a killed deletion may have deleted rows of any.
    """
    client = cast(FilesystemClient, into.destination_client())
    tables = list(tables_of(DeltaDataset(client)))
    for table in tables:
        drop_old_versions(client, table)
    return Rewritten(tables, {}, None)


# ---- PostgreSQL ------------------------------------------------------------------------------------------------------


def _vacuum(into: dlt.Pipeline) -> Rewritten:
    """Makes the server rewrite all tables of the dataset, its staging dataset and the dataset of its books.

    All tables are included, because a killed deletion may have deleted rows of any. The planner's samples of rows are
    also renewed, and the table that held the old ones is rewritten if the role may do so.
    """
    done: list[str] = []
    left: dict[str, str] = {}
    with into.destination_client() as client:
        sql: Any = client.sql_client  # type: ignore[attr-defined]
        has_books = isinstance(sql, BooksSqlClient) and sql.has_separate_books
        for dataset in (nullcontext, sql.with_staging_dataset, *([sql.with_books] if has_books else ())):
            with dataset():
                for table in _tables(sql):
                    name = f"{sql.dataset_name}.{table}"
                    why = _vacuum_table(sql, "FULL, ANALYZE", sql.make_qualified_table_name(table, casefold=False))
                    if why := why or _drop_samples(sql, table):
                        left[name] = why
                    else:
                        done.append(name)
        samples = _vacuum_table(sql, "FULL", "pg_catalog.pg_statistic")
    left_over = samples and f"The planner's old samples of rows may still be in pg_statistic: {samples}."
    return Rewritten(done, left, left_over)


def _tables(sql: Any) -> list[str]:
    found = sql.execute_sql("SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1", sql.dataset_name)
    return [table for (table,) in found or () if not table.startswith(LOCKS)]


def _drop_samples(sql: Any, table: str) -> str | None:
    """Drops the planner's samples of an empty table, which the server keeps until the type of a column is set.

    Returns why that failed, or None if it succeeded or the table has rows. It fails if the role is not the table's
    owner, or if a view uses the column.
    """
    name = sql.make_qualified_table_name(table, casefold=False)
    if sql.execute_sql(f"SELECT 1 FROM {name} LIMIT 1"):
        return None
    try:
        for column, of in sql.execute_sql(sql_file("sampled_columns_postgres.sql"), sql.dataset_name, table) or ():
            quoted = sql.escape_column_name(column, casefold=False)
            sql.execute_sql(f"ALTER TABLE {name} ALTER COLUMN {quoted} TYPE {of}")
    except Exception as error:  # noqa: BLE001 - drivers raise errors of any type, and they are reported
        why = str(error).partition("\n")[0]
        return f"the planner's samples of its rows could not be removed: {why}"
    return None


def _vacuum_table(sql: Any, how: str, table: str) -> str | None:
    """Vacuums a table. Returns None, or why the server skipped it, which PostgreSQL reports only as a notice."""
    notices: list[str] = sql.native_connection.notices
    del notices[:]
    sql.execute_sql(f"VACUUM ({how}) {table}")
    denied = [notice.partition(":")[2].strip() for notice in notices if "permission denied" in notice]
    return "; ".join(dict.fromkeys(denied)) or None
