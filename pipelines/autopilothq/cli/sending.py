"""Runs the commands `send` and `deliveries`."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from .. import runner
from ..catalog import STATUSES
from ..clients.auth import missing_key
from ..destination import (
    Counts,
    DeliveryLog,
    DestinationSettings,
    Preview,
    audiences,
    deliver,
    log_dataset,
    resolve_settings,
)
from ..destination.audiences import Audience, PersonRows
from ..destination.kind import ACCOUNT_KINDS, AUTOPILOT, ORTTO, AccountKind
from ..destination.messages import Ignored, Item, from_line, refuse_item
from ..destination.settings import ORTTO_SECTION, SECTION, AnySettings, OrttoDestinationSettings
from ..disk import local_path
from ..display import plural, shortened, visible
from ..errors import DatasetNotFound, InvalidQuery, RunError
from ..explain import explained, is_unreachable
from ..masking import masked
from ..segment.message import Reject, digest, is_blank_line
from ..sources.archive import list_files
from ..sources.archive.batches import read_batches
from ..sources.archive.listing import File
from ..sources.archive.source import nothing_found
from ..warehouses import lock
from ..warehouses.query import reason_of, run_query
from ..warehouses.resolve import Target, resolve_target
from ..warehouses.settings import TargetOptions, setting
from . import log as logs
from . import notes, out
from .configuring import missing_explained
from .kept_rows import KeptRows, kept_rows
from .options import freeze_modules
from .progress import LOG_SECONDS
from .send_options import SendOptions
from .tabular import fitted

NOT_ALL = 4


def send_files(paths: Sequence[str], triggers: dict[str, list[str]], options: SendOptions) -> None:
    """Sends the messages of files."""
    with explained():
        given = with_triggers(account_settings(options), triggers)
        with sending_lock(options), delivery_log(options) as log:
            broken: list[str] = []
            counts = _deliver_items(_messages(paths, broken, account_kind(options).integrations), log, given, options)
    end_run(counts, options, broken)


def send_rows(query: str, key: str, options: SendOptions) -> None:
    """Sends an identify for each row of a query."""
    with explained():
        given = account_settings(options)
        with sending_lock(options), person_rows(query, key, options) as found, delivery_log(options) as log:
            counts = _deliver_items(audiences.trait_items(found), log, given, options)
    end_run(counts, options, more=skipped_line(found.skipped, key))


def send_changes(name: str, query: str, key: str, options: SendOptions) -> None:
    """Sends who entered and who left an audience."""
    with explained():
        given = account_settings(options)
        with sending_lock(options), person_rows(query, key, options) as found:
            audience = Audience(audiences.slug(name), key, found)
            with delivery_log(options) as log:
                counts, line = deliver_changes(audience, log, given, options)
    out.print_line(line)
    end_run(counts, options, more=skipped_line(found.skipped, key))


def print_deliveries(
    to: str, status: str | None, since: datetime | None, target: TargetOptions, wait: timedelta
) -> None:
    """Prints the last outcome of each message and trigger that was sent to an account."""
    with explained():
        where = log_dataset(*target, reads=True, wait=wait)
        with DeliveryLog(where, reads=True, table=ACCOUNT_KINDS[to].log) as log:
            rows = log.latest(status, since)
        if not rows and target.credentials:
            _check_exists(resolve_target(target))
    if rows:
        out.document("\n".join([*_deliveries(list(map(_cells, rows))), ""]))
    counts = {name: sum(row["status"] == name for row in rows) for name in STATUSES}
    out.print_line(", ".join(f"{number:,} {name}" for name, number in counts.items()))


def _check_exists(target: Target) -> None:
    """Raises DatasetNotFound if the file or folder of a target is missing, most likely because it is misspelt."""
    path = target.database or local_path(target.location)
    if os.path.isabs(path) and not os.path.exists(path):
        raise DatasetNotFound(f"Expected a database or a lake at {path}, but nothing is there.\nCheck the spelling.")


class _Cells(NamedTuple):
    """The cells of a delivery in the order of the table's columns."""

    sent_at: str
    status: str
    kind: str
    person: str
    message: str
    about: str
    trigger: str
    http: str
    answer: str


_HEAD = _Cells("sent at (UTC)", "status", "type", "person", "message", "event or audience", "trigger", "http", "answer")


def _cells(row: Mapping[str, Any]) -> _Cells:
    return _Cells(
        sent_at=f"{row['sent_at'].astimezone(UTC):%Y-%m-%d %H:%M:%S}",
        status=row["status"],
        kind=row["kind"] or "-",
        person=row["email"] or row["user_id"] or "-",
        message=row["message_id"] or "-",
        about=row["audience"] or row["event"] or "-",
        trigger=row["trigger_id"] or "-",
        http=str(row["http_status"] or "-"),
        answer=row["message"] or "",
    )


def _deliveries(deliveries: Sequence[_Cells]) -> list[str]:
    """Returns deliveries as a table; if the terminal is too narrow, each row has its last columns on a line below."""
    rows = [_HEAD, *deliveries]
    narrow = [(row.sent_at, row.status, row.kind, row.http, row.person) for row in rows]
    return fitted(rows, narrow, list(map(_below, deliveries)))


def _below(cells: _Cells) -> str:
    parts = (("message", cells.message), ("of", cells.about), ("trigger", cells.trigger))
    named = ", ".join(f"{name} {shortened(cell)}" for name, cell in parts if cell != "-")
    return ": ".join(filter(None, (named, visible(cells.answer))))


# ---- shared by the commands ----------------------------------------------------------------------------------------


def account_kind(options: SendOptions) -> AccountKind:
    """Returns the kind of account that `--to` names; commands without it use Autopilot's."""
    return ACCOUNT_KINDS[options.to]


def account_settings(options: SendOptions) -> AnySettings:
    """Returns the settings of `--to`'s account, with the command's options. Raises RunError without a key."""
    if account_kind(options) is AUTOPILOT:
        return autopilot_settings(options.unknown_traits)
    given = {"unknown_traits": options.unknown_traits, "allow_http": logs.allowed_http()}
    found = OrttoDestinationSettings.resolve(**given)
    if found is None:
        raise RunError(_no_key(ORTTO_SECTION, ORTTO))
    return found


def autopilot_settings(unknown_traits: str | None = None) -> DestinationSettings:
    """Returns the settings of the Autopilot account, with the command's options. Raises RunError without a key."""
    with missing_explained(api_key=_no_key(SECTION, AUTOPILOT)):
        return resolve_settings(unknown_traits=unknown_traits, allow_http=logs.allowed_http())


def _no_key(section: str, kind: AccountKind) -> str:
    return missing_key(f"the key of the {kind.title} account that receives", f"{section}.api_key")


def with_triggers(given: AnySettings, triggers: dict[str, list[str]]) -> AnySettings:
    """Returns the settings with the command's triggers, which replace configured triggers of the same events."""
    if isinstance(given, OrttoDestinationSettings):
        return replace(given, activities={**(given.activities or {}), **triggers})
    return replace(given, triggers={**(given.triggers or {}), **triggers})


@contextmanager
def sending_lock(options: SendOptions) -> Iterator[None]:
    """Holds the lock of sending while the block runs, so that two runs never send the same track.

    A load may run at the same time, except into a DuckDB file. A dry run takes no lock.
    """
    if options.dry_run:
        yield
        return
    wait = options.wait
    with lock.held(runner.pipeline(*options.target, wait=wait), wait.total_seconds(), "send"):
        yield


def delivery_log(options: SendOptions) -> DeliveryLog:
    """Returns the account's delivery log in the target's dataset. A dry run only reads it."""
    dry = options.dry_run
    where = log_dataset(*options.target, reads=dry, wait=options.wait)
    return DeliveryLog(where, reads=dry, table=account_kind(options).log)


@contextmanager
def query_rows(query: str, options: SendOptions) -> Iterator[tuple[list[str], KeptRows]]:
    """Yields the columns and rows of a query, with its connection closed again. Raises RunError if the query is wrong.

    Many rows are kept in a file instead of in memory.
    """
    with kept_rows() as rows:
        try:
            with run_query(log_dataset(*options.target, reads=True, wait=options.wait), query) as (names, batches):
                for batch in batches:
                    rows.add(batch)
        except InvalidQuery as error:
            raise RunError(f"{error} Nothing was sent.") from error
        except Exception as error:  # drivers have their own exceptions for wrong SQL
            if is_unreachable(error):
                raise
            raise RunError(f"The warehouse cannot answer the query: {reason_of(error)}\nNothing was sent.") from error
        yield names, rows


@contextmanager
def person_rows(query: str, key: str, options: SendOptions) -> Iterator[PersonRows]:
    """Yields the rows of a query that have a `key`."""
    with query_rows(query, options) as (names, rows):
        yield PersonRows(names, rows, key)


def _messages(paths: Sequence[str], broken: list[str], names: Sequence[str]) -> Iterator[Item | Ignored]:
    """Returns the messages of files in order. `names` are the account's names in a message's `integrations`."""
    return (
        from_line(line, names) if isinstance(line, bytes) else refuse_item(digest(line.raw), line.reason)
        for line in archive_lines(paths, broken)
    )


def archive_lines(paths: Sequence[str], broken: list[str]) -> Iterator[bytes | Reject]:
    """Lists the files at `paths`, and returns an iterator of their lines and rejects, in order.

    Adds to `broken` each file that could not be read to its end, with the reason. Warns if there is no file. Raises
    ArchiveError if nothing exists at a path.
    """
    left_out: dict[str, str] = {}
    files = list_files(paths, credentials=setting("sources.autopilothq.credentials"), left_out=left_out)
    if not files:
        logs.warn(nothing_found("send", paths, left_out))
    return _lines(files, broken)


def _lines(files: list[File], broken: list[str]) -> Iterator[bytes | Reject]:
    for batch in read_batches(files):
        rejects = {(reject.file, reject.line) for reject in batch.rejects}
        columns = (batch.lines.column(name) for name in ("file", "line", "text"))
        for file, line, text in zip(*(column.to_pylist() for column in columns), strict=True):
            if (file, line) not in rejects and not is_blank_line(text):
                yield text
        yield from batch.rejects
        broken += [f"{files[number].url}: {why}" for number, why in batch.ended if why is not None]


def _deliver_items(
    items: Iterable[Item | Ignored], log: DeliveryLog, given: AnySettings, options: SendOptions, is_all: bool = True
) -> Counts:
    """Delivers items; a dry run only prints what would change. `is_all` tells whether the run changes nothing else."""
    freeze_modules()
    report = reporter(account_kind(options).title)
    if not options.dry_run:
        with report_if_broken_off(report, account_kind(options).title) as progress:
            return deliver(items, log, given, progress)
    from .preview import print_preview

    preview = Preview()
    counts = deliver(items, log, given, report, preview, out.document if options.requests else None)
    if not options.requests:
        print_preview(preview, log, is_all)
    return counts


def deliver_changes(
    audience: Audience, log: DeliveryLog, given: AnySettings, options: SendOptions, is_all: bool = True
) -> tuple[Counts, str]:
    """Delivers who entered and who left an audience. Returns the counts, and a line about the changes."""
    changes = audiences.audience_changes(audience, log.members(audience.trait))
    counts = _deliver_items(audiences.membership_items(changes), log, given, options, is_all)
    members = plural(len(audience.members), "member")
    numbers = f"{changes.entering:,} to enter, {len(changes.left):,} to leave, {len(changes.unchanged):,} unchanged"
    return counts, f"{audience.trait}: {members}, {numbers}"


def reporter(title: str = AUTOPILOT.title) -> Callable[[Counts], None]:
    """Returns a function that prints a run's counts, at most once in LOG_SECONDS. `title` names the account."""
    last = time.monotonic()

    def progress(counts: Counts) -> None:
        nonlocal last
        if time.monotonic() - last >= LOG_SECONDS:
            last = time.monotonic()
            if logs.log_settings().json:
                logs.line("info", "sending", **_numbers(counts))
            else:
                out.print_line(f"{time.strftime('%H:%M:%S')} {_line(counts, title)}", err=True)

    return progress


@contextmanager
def report_if_broken_off(report: Callable[[Counts], None], title: str) -> Iterator[Callable[[Counts], None]]:
    """Yields a function that passes a run's counts on to `report`. If the run breaks off, prints the last counts."""
    last: list[Counts] = []

    def progress(counts: Counts) -> None:
        last[:] = [counts]
        report(counts)

    try:
        yield progress
    except BaseException:
        for counts in last:
            print_counts(counts, title)
        raise


def _numbers(counts: Counts) -> dict[str, int]:
    return {name: value for name, value in vars(counts).items() if isinstance(value, int) and value}


def _line(counts: Counts, title: str) -> str:
    text = (
        f"{plural(counts.messages, 'message')}: {counts.delivered:,} delivered, {counts.refused:,} refused,"
        f" {counts.failed:,} failed, {counts.unknown:,} unknown"
    )
    others = [(counts.known, "delivered before"), (counts.repeated, "twice in the input")]
    others.append((counts.suppressed, "of deleted persons"))
    others.append((counts.not_meant, f"not meant for {title}"))
    others += [(number, f"of type {type_}, which {title} does not take") for type_, number in counts.ignored.items()]
    return text + "".join(f", {number:,} {what}" for number, what in others if number)


def skipped_line(number: int, key: str) -> list[str]:
    """Returns a list with a line about the query's rows without a `key`; an empty one if there are no such rows."""
    return [f"{plural(number, 'row')} without {key} skipped"] if number else []


def end_run(counts: Counts, options: SendOptions, broken: Sequence[str] = (), more: Iterable[str] = ()) -> None:
    """Prints the outcome, and exits with 4 if not everything was delivered. `broken` is as in `archive_lines`."""
    print_counts(counts, account_kind(options).title, options.dry_run, more)
    for why in broken:
        out.print_wrapped(masked(f"  not read to its end: {why}"))
    if not counts.all_delivered or broken:
        sys.exit(NOT_ALL)


def print_counts(counts: Counts, title: str, dry_run: bool = False, more: Iterable[str] = ()) -> None:
    """Prints the counts of a run's outcomes, and their reasons."""
    line = _line(counts, title)
    notes.summarise(line)
    if logs.log_settings().json:
        logs.line("info", "done", **_numbers(counts), dry_run=dry_run)
    out.print_wrapped(("would send " if dry_run else "") + line)
    for line in more:
        out.print_wrapped(f"  {line}")
    for (status, why), number in counts.reasons.most_common(20):
        out.print_wrapped(f"  {number:,} {status}: {why}")
    for remark, number in counts.remarks.most_common(20):
        out.print_wrapped(f"  {plural(number, 'time')} {remark}")
    for name, number in counts.unmapped.most_common(20):
        why = "it is spelt like a contact's field, but no setting maps it"
        out.print_wrapped(f"  {plural(number, 'time')} the property {name} was not taken: {why}")
