"""Explains errors of dlt, drivers and file systems to a person: what went wrong at the root, and what to do."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import disk_usage
from tempfile import gettempdir

from dlt.common.configuration.exceptions import ConfigFieldMissingException
from dlt.common.exceptions import MissingDependencyException
from dlt.common.pipeline import get_dlt_pipelines_dir
from dlt.pipeline.exceptions import PipelineStepFailed

from .catalog import key_of
from .display import gist
from .errors import AutopilothqError, BusyError, RunError, causes
from .extras import is_own_import_error
from .masking import masked
from .warehouses import requirements
from .warehouses.dlt_internals import (
    ConfigValueCannotBeCoercedException,
    DatabaseException,
    DestinationConnectionError,
    InvalidNativeValue,
    LoadClientJobException,
    UnknownDestinationModule,
    ValueNotSecretException,
)
from .warehouses.dlt_internals.runtime import active_destination
from .warehouses.settings import misplaced_secret, wrong_setting

# What Python raises if the program itself is wrong. Compared by exact type, because libraries derive errors from some.
_PROGRAM_ERRORS = (AssertionError, AttributeError, IndexError, KeyError, NameError, RecursionError, TypeError)
_WRAPPED = ("exception", "__cause__")  # where dlt and Python keep the error that another one wraps
_REPORT = "This is a fault of autopilothq: please report what `autopilothq --debug` shows of it."
_RETYPED = (
    "Somebody changed {}: change it back (ALTER TABLE ... ALTER COLUMN ... TYPE), or drop the {}: the next run creates"
    " it again, empty."
)
_TIMED_OUT = "Allow more: statement_timeout (seconds) under [destination.{}]."
# For errors in which Python does not name the file.
_UNNAMED = (
    "Make room on the disk of the output, of dlt's folder (DLT_DATA_DIR, else ~/.dlt, or /var/dlt for root), or of"
    " temporary files (TMPDIR), then run it again."
)
# A disk with fewer free bytes counts as full. Some are free, because a run that fails removes some of its files.
_FULL = 1 << 20
_LONGEST = 2_000  # characters that are shown of what a database reports
_END = 200  # of these, characters of its end
_ADVICE = {
    "^Expected the file .+ of a Delta table": "Bring it back, or give up its rows as how-to/warehouses.md says.",
    "^The table .+ cannot be opened: .*(Kernel error: Unsupported|reader features|reader version)": "Somebody enabled a"
    " feature of that table that the package deltalake cannot read: install a newer one, or drop the feature with the"
    " program that enabled it (ALTER TABLE ... DROP FEATURE).",
    "^The table .+ cannot be opened: ": "The folder _delta_log of that table is damaged: bring it back, or give up the"
    " table as how-to/warehouses.md says.",
    "due to statement timeout": _TIMED_OUT,
    "is of type .+ but expression is of type|insufficient data left|incorrect binary data|: 0x00$": _RETYPED,
    "cannot insert a non-DEFAULT value into column": "Somebody made PostgreSQL fill that column: drop it, and"
    " the next run creates it again, empty.",
    "does not have a replica identity": "A publication has that table: let PostgreSQL tell its rows apart (ALTER TABLE"
    " ... REPLICA IDENTITY FULL), or publish new rows only (ALTER PUBLICATION ... SET (publish = 'insert')).",
    r"^Catalog Error: Schema with name .+ already exists": "Its name differs only in its case, and DuckDB cannot rename"
    " it: load into another dataset (--dataset, dataset_name).",
    "null value in column .+ violates not-null": "Somebody made that column required: allow nulls (ALTER TABLE ..."
    " ALTER COLUMN ... DROP NOT NULL).",
    "colliding names when case insensitive|column .+ of relation .+ does not exist": "If somebody added a column to"
    " that table whose name differs only in its case, rename it (ALTER TABLE ... RENAME COLUMN).",
    "no partition of relation": "Create the partition, or one for all other rows (PARTITION OF ... DEFAULT).",
    "row-level security": "Let the user of the credentials see and write all rows (ALTER ROLE ... BYPASSRLS).",
    "duplicate key value violates unique constraint": "If that row is hidden from the user of the credentials, let it"
    " see and write all rows (ALTER ROLE ... BYPASSRLS).",
    "^permission denied for database ": "Create the missing schema and let that user use it (GRANT USAGE, CREATE ON"
    " SCHEMA), or let it create schemas (GRANT CREATE ON DATABASE). A load has two: NAME and NAME_staging.",
    "^(permission denied for|must be owner of) ": "Give the user of the credentials that right (GRANT, ALTER ... OWNER"
    " TO).",
    "has no equivalent in encoding": "Load into a database that holds every character: CREATE DATABASE ... ENCODING"
    " 'UTF8' TEMPLATE template0.",
    "in a read-only transaction": "Connect to the primary server, or let the user of the credentials write (ALTER ROLE"
    " ... SET default_transaction_read_only = off).",
    "unsupported startup parameter": "A connection pooler refuses the settings of sessions: name the host and port of"
    " PostgreSQL itself in the credentials, or allow them (PgBouncer: ignore_startup_parameters = options).",
    "^connection to server .+ failed: (Connection |No route|Network|timeout)|^could not translate host|^invalid port": (
        "Correct the host and the port in the credentials, start that server, or open the network to it."
    ),
    "password authentication failed|no password supplied|no pg_hba.conf entry": "Correct the user and the password in"
    " the credentials, or let that user in (pg_hba.conf).",
    "too many connections|too many clients|connection slots": "Allow more connections, or let a load take fewer:"
    " workers = 1 under [load] of dlt's configuration.",
    'database ".*" does not exist': "Correct the database in the credentials, or create it (CREATE DATABASE); no load"
    " does that.",
    'role ".*" does not exist': "Correct the user in the credentials, or create it (CREATE ROLE ... LOGIN); no load"
    " does that.",
    r"(?i)\b(relation|table|view|column|schema)\b.* does not exist|does not have a column": "Run it again: that"
    " recreates what somebody dropped.",
    "Too many open files": "Let this program open more files (ulimit -n 1024), then run it again.",
    "bad.alloc|^MemoryError|^(m|re)alloc of size|Cannot allocate memory|(start|create)( new)? thread": "The system"
    " gives this program no more memory, or no more threads: allow more (ulimit -v, ulimit -u, the container's limits),"
    " or let it take less: memory = 200 under [sources.autopilothq], workers = 1 under [load].",
    "Out of Memory Error|(allocate|pin) block of size": "Allow more: memory (MB, 400 unless set) under"
    " [sources.autopilothq], or for the load step memory_limit under [destination.duckdb.credentials.global_config].",
    "Unique file handle conflict": "That file is the target of this load, too: load into another one (--credentials).",
    "Failed to download ext|automatically install the required ext|^IO Error: Extension .+ not found": "DuckDB"
    " downloads each extension once. Without a network, install this one elsewhere with the same version of"
    " DuckDB (INSTALL), and copy ~/.duckdb/extensions from there. duckdb and ducklake take another folder, too:"
    " extension_directory under [destination.NAME.credentials.global_config].",
    "Failed to load '.+', The file ": "Its file in ~/.duckdb/extensions is damaged, or not for this version of DuckDB"
    " and this machine: remove it, and DuckDB downloads it again (or copy the right one to its place).",
    "find the home directory": "Set HOME: DuckDB keeps its extensions below it.",
    "^[^/]*(No space left on device|Disk quota exceeded|File too large)$": _UNNAMED,
    "No space left|File too large|Disk quota|out of disk": "Make room on that disk, then run it again.",
    r"(Permission denied|not permitted|Read-only f).*/|/.*(Permission denied|not permitted|Read-only f)": "Give"
    " this user the right to it (chmod, chown), or name another place.",
}
"""Patterns of messages of databases and operating systems, with what to do about each."""
_COPIED = re.compile(r"CONTEXT:\s+COPY (.+?), line \d+, column (.+?)(?:: |$)", re.MULTILINE)
"""Where PostgreSQL was in a file when it failed: the table and the column."""
_MISTYPED = re.compile('column "(.+)" is of type .+ but expression is of type')
_UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)
_PREAMBLE = re.compile(r"^Connection with `.+? The actual reason given is: ", re.DOTALL)
"""The beginning of dlt's message about any connection that fails."""
_LOST_FILE = re.compile(r"Object at location (\S.*?) not found")
"""How the library of Delta tables reports a missing file that a table's log names; DuckDB adds pages of other text."""
_HELD_FILE = re.compile(r'Could not set lock on file "(.+?)": Conflicting lock is held in (.+?\)|[^.]+)')


@contextmanager
def explained() -> Iterator[None]:
    """Turns errors of dlt, drivers and file systems into a RunError of one or two lines."""
    try:
        yield
    except Exception as error:  # drivers raise errors of any type; --debug shows them completely
        explanation = explain(error)
        if explanation is error:
            raise
        raise explanation from error


def explain(error: Exception) -> RunError:
    """Returns the error as a RunError of one or two lines, without secrets: its root cause, and what to do.

    A RunError is returned itself, with its secrets masked.
    """
    if isinstance(error, RunError):
        error.args = tuple(masked(text) if isinstance(text, str) else text for text in error.args)
        return error
    busy = busy_message(error)
    return BusyError(masked(busy)) if busy else RunError(error_message(error))


def is_unreachable(error: BaseException) -> bool:
    """Returns whether a query failed because the warehouse cannot be opened, or because this package refuses it."""
    reasons = (AutopilothqError, DestinationConnectionError)
    return any(isinstance(cause, reasons) for cause in causes(error, *_WRAPPED)) or busy_message(error) is not None


def busy_message(error: BaseException) -> str | None:
    """Returns a message that names who holds what this run needs; None if the error has another cause."""
    return next(filter(None, map(_holder_message, causes(error, *_WRAPPED, "__context__"))), None)


def _holder_message(error: BaseException) -> str | None:
    if isinstance(error, BusyError):
        return str(error)
    held = _HELD_FILE.search(str(error))
    return held and (
        f"The DuckDB file {held[1]} is open in another program: {held[2]}.\n"
        "Close it there and run this again, or wait for that: --wait 10m"
    )


def error_message(error: BaseException) -> str:
    """Returns the root cause of an error and what to do, in one or two lines, with secrets masked."""
    chain = list(causes(error, *_WRAPPED, "__context__"))
    return masked(_own_message(chain) or _foreign_message(error, chain))


def _own_message(chain: list[BaseException]) -> str | None:
    """Returns the message of an error of this package, or what to install or configure; None for any other error."""
    for cause in chain:
        if isinstance(cause, AutopilothqError):
            return str(cause)
    for cause in chain:
        if isinstance(cause, UnknownDestinationModule):
            return requirements.unknown_destination(cause)
        if isinstance(cause, MissingDependencyException | ModuleNotFoundError) and not is_own_import_error(cause):
            return requirements.missing_package(cause)
    for cause in chain:
        if isinstance(cause, ConfigFieldMissingException):
            return requirements.missing_settings(cause)
        if isinstance(cause, ConfigValueCannotBeCoercedException):  # its own message has the value, which may be secret
            return wrong_setting(cause)
        if isinstance(cause, InvalidNativeValue):
            return requirements.wrong_credentials(cause)
        if isinstance(cause, ValueNotSecretException):
            return misplaced_secret(cause)
    return None


def _unusable_data_folder(error: OSError) -> str:
    """Returns the message if dlt's folder cannot be created or written to; "" if the error is about something else."""
    if error.errno not in _UNUSABLE or not error.filename or isinstance(error.filename, int):
        return ""
    folder, named = Path(get_dlt_pipelines_dir()).absolute().parent, Path(os.fsdecode(error.filename)).absolute()
    is_above, is_below = named in (folder, *folder.parents), folder in named.parents
    if not is_above and not (is_below and (error.errno != errno.ENOENT or not folder.exists())):
        return ""
    return (
        f"Cannot write to {named}, for dlt's folder {folder}: {error.strerror}.\n"
        "Name a folder that this user may write to: DLT_DATA_DIR=/path/to/folder"
    )


def _foreign_message(error: BaseException, chain: list[BaseException]) -> str:
    """Returns what a database, the system or a library reports, and what to do about it."""
    root = next(
        (cause for cause in chain if isinstance(cause, DatabaseException | OSError)), [*causes(error, *_WRAPPED)][-1]
    )
    lost = next(filter(None, (_LOST_FILE.search(str(cause)) for cause in chain)), None)
    text = _without_middle(gist(_PREAMBLE.sub("", str(root))))
    if lost:
        text = f"Expected the file {lost[1]} of a Delta table, but there is none."
    if isinstance(root, OSError) and (unusable := _unusable_data_folder(root)):
        return unusable
    is_fault = type(root) in _PROGRAM_ERRORS or is_own_import_error(root)
    if is_fault or not text:
        text = f"{type(root).__name__}: {text}".rstrip(": ")
    advice = next((advice for pattern, advice in _ADVICE.items() if re.search(pattern, text)), "")
    if advice == _RETYPED:
        advice = advice.format(*_retyped(text, chain))
    if advice == _TIMED_OUT:
        advice = advice.format(_postgres_name())
    if advice == _UNNAMED:
        advice = _full_folders() or advice
    if is_fault:
        advice = _REPORT
    if not isinstance(error, PipelineStepFailed):
        return f"{text}\n{advice}".rstrip()
    nothing = "Nothing of it counts as loaded; run it again once that is fixed."
    return f"The {error.step} step failed: {text}\n{f'{advice} Nothing of it counts as loaded.' if advice else nothing}"


def _without_middle(text: str) -> str:
    """Returns a text without its middle if it is long: ClickHouse repeats a statement with all its values.

    The patterns of `_ADVICE` would take minutes for it. Secrets are masked before, because half of one is not found.
    """
    if len(text) <= _LONGEST:
        return text
    text = masked(text)
    return f"{text[: _LONGEST - _END]} … {text[-_END:]}"


def _full_folders() -> str:
    """Returns which folders that this program writes to are on a full disk, and what to do; "" if none is."""
    full: dict[Path, str] = {}
    for find, what in (
        (lambda: Path(get_dlt_pipelines_dir()).parent, "dlt's folder (DLT_DATA_DIR)"),
        (gettempdir, "the folder of temporary files (TMPDIR)"),
        (Path.cwd, "the current folder"),
    ):
        with suppress(OSError):  # the current folder is gone, or no folder of temporary files can be written to
            folder = Path(find()).absolute()
            if _free_bytes(folder) < _FULL:
                full.setdefault(folder, what)
    named = " and of ".join(f"{what} {folder}" for folder, what in full.items())
    return f"The disk of {named} is full: make room there, then run it again." if full else ""


def _free_bytes(folder: Path) -> int:
    """Returns the free bytes of the disk that holds a folder, or would hold it."""
    return disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free


def _postgres_name() -> str:
    """Returns the name under which the pipeline's PostgreSQL is configured; `postgres` if it loads elsewhere."""
    destination = active_destination()
    is_postgres = destination is not None and destination.destination_type.endswith("postgres")
    return destination.destination_name if destination is not None and is_postgres else "postgres"


def _retyped(text: str, chain: list[BaseException]) -> tuple[str, str]:
    """Returns what somebody changed, with the column if an error names it, and what to drop to get the old type back.

    If it is a column of the table's key, that is the whole table: without its key it cannot be loaded.
    """
    copied = next(filter(None, (_COPIED.search(str(cause)) for cause in chain)), None)
    mistyped = _MISTYPED.search(text)
    job = next((cause for cause in chain if isinstance(cause, LoadClientJobException)), None)
    if copied:
        table, column = copied.groups()
    elif mistyped and job:
        table, column = job.job_id.partition(".")[0], mistyped[1]
    else:
        return "a column's type", "column"
    return f"the type of the column {column} of {table}", "table" if column in key_of(table) else "column"
