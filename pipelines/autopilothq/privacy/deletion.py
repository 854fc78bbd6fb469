"""Deletes a person's rows, and their lines in the archive, and adds the person to the suppression list.

A deletion can be repeated at any time, even after it was killed, because the hashes of all of the person's ids are
stored before the first row is deleted.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from tempfile import TemporaryDirectory
from typing import NamedTuple

import dlt

from .. import runner
from ..catalog import LATEST
from ..display import plural, shortened
from ..errors import DatasetNotFound, RunError
from ..explain import explained
from ..projection import engine as values
from ..projection import suppression
from ..segment.identity import HashedIds, Id
from ..sources.archive.listing import File
from ..warehouses import lock
from ..warehouses.books import check_books
from ..warehouses.dataset import Dataset, dataset_of, let_rows_change, queryable_client, tables_that_hide_rows
from ..warehouses.dlt_internals import SqlJobClientBase
from ..warehouses.resolve import Target, resolve_target
from ..warehouses.settings import CONFIGURED_TARGET, TargetOptions
from . import MAX_IDS, archive_lines
from . import rewrite as rewriting
from .other_persons import mend_rows
from .person import NotFollowed, PersonIds, PersonTables, Suppressed, fault_of, person_tables
from .received import all_files_at
from .removals import Removal, delete_rows, removals, rows_by_table
from .suppression_list import SuppressionList
from .working_copies import drop_working_copies

MEMORY = 500  # MB for the ids of a dataset; beyond that they spill to disk
KILL_POINT_ROWS_DELETED = f"{__name__}:delete_rows"  # for tests/faults
KILL_POINT_ALL_ROWS_DELETED = f"{__name__}:_remove"  # for tests/faults


class Confirmation(NamedTuple):
    """The number of ids that the caller has confirmed; without it, up to `max_ids` may be deleted."""

    number: int | None = None
    max_ids: int = MAX_IDS

    def allows(self, ids: int) -> bool:
        """Returns whether this many ids may be deleted."""
        return ids <= self.max_ids if self.number is None else ids == self.number


NO_CONFIRMATION = Confirmation()


class Unconfirmed(RunError):
    """The number of the person's ids was not confirmed; nothing was changed. `made` is what would be removed."""

    def __init__(self, made: "PersonDeletion", confirmation: Confirmation) -> None:
        self.made = made
        number, max_ids = confirmation
        super().__init__(
            f"Expected --confirm {made.suppressed}, because {plural(made.suppressed, 'id')} would be deleted as this"
            f" person's{'' if made.suppressed <= max_ids else f' and --max-ids is {max_ids}'},"
            f" but got {'none' if number is None else f'--confirm {number}'}. Nothing was changed.\n"
            f"Check the ids, and how each was found. If all are one person's, add --confirm {made.suppressed}."
        )


@dataclass
class PersonDeletion:
    """The result of a deletion; with `dry_run`, what it would be.

    `ids` are the ids that are known in plain text; `suppressed` also counts those known only by their hashes, from
    earlier deletions. `shared` are ids that share a row with the person's and were not followed. `rows` and `lines` are
    numbers by table and by file. `left` has the reasons why files or tables were not changed; they may still have data
    of the person. `rewritten` are the database files or tables that were rewritten; `remains` is a sentence on what
    still keeps the bytes of deleted rows.
    """

    dry_run: bool
    ids: list[Suppressed] = field(default_factory=list)
    suppressed: int = 0
    shared: list[NotFollowed] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    rewritten: list[str] = field(default_factory=list)
    remains: str | None = None


def delete_person(
    given: Sequence[Id],
    target: TargetOptions = CONFIGURED_TARGET,
    archive: Sequence[str] = (),
    dry_run: bool = False,
    wait: timedelta = timedelta(),
    rewrite: bool = False,
    confirmation: Confirmation = NO_CONFIRMATION,
) -> PersonDeletion:
    """Deletes the rows and lines of the person with these ids, and keeps the person out of later loads.

    Ids that share a row with the person's ids are followed if they are certainly theirs (`closure`). `rewrite` also
    removes the bytes that the destination keeps of deleted rows. Raises Unconfirmed, before anything is changed, if the
    number of ids is not confirmed; ArchiveError if files cannot be listed; and RunError, such as DatasetNotFound.
    """
    _check_given(given)
    with explained(), ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory()) if dry_run else None
        into = runner.pipeline(*target, pipelines_dir=folder, create=False, wait=wait)
        files = all_files_at(archive, dry_run, stack)
        _check(into, resolve_target(target))
        for work in () if dry_run else ("", "send"):  # a run of `send` would write the person into its log again
            stack.enter_context(lock.held(into, wait.total_seconds(), work))
        if rewrite:
            rewriting.check_rewritable(into)
        with into.destination_client() as client:
            made = _delete(given, dataset_of(client), files, into, confirmation, dry_run)
        if dry_run:
            return made
        if rewrite:
            made.rewritten, left, made.remains = rewriting.rewrite(into)
            made.left |= left
        else:
            made.remains = rewriting.remains(into)
        return made


def _delete(
    given: Sequence[Id],
    dataset: Dataset,
    files: Sequence[File],
    into: dlt.Pipeline,
    confirmation: Confirmation,
    dry_run: bool,
) -> PersonDeletion:
    with TemporaryDirectory() as scratch, values.connect(scratch, MEMORY, threads=2) as engine:
        listed, tables = SuppressionList(dataset), person_tables(dataset)
        _check_rights(tables)
        _check_types(tables)
        person = PersonIds(given, listed, tables, engine)
        hashes = HashedIds(person.pairs(), listed.key)
        suppression.register_suppressed(engine, hashes.pairs(), hashes.key, person.ids)
        plan = [removal for part in tables for removal in removals(part, person, engine)]
        made = PersonDeletion(dry_run, person.suppressed(), person.count, person.shared(), rows_by_table(plan))
        if not dry_run:
            if not confirmation.allows(made.suppressed):
                raise Unconfirmed(made, confirmation)
            drop_working_copies(into)
            _remove(dataset, listed, person, tables, plan)
        by_hash = person.has_hashes_alone
        made.lines, made.left = archive_lines.rewrite_files(files, hashes, by_hash, engine, dataset, dry_run)
        return made


def _remove(
    dataset: Dataset,
    listed: SuppressionList,
    person: PersonIds,
    tables: Sequence[PersonTables],
    plan: Sequence[Removal],
) -> None:
    """Suppresses the ids first, then deletes the rows; in one transaction if the destination has transactions.

    In between, rows of `users` and `accounts` that are about others are mended, so that they are not deleted.
    """
    listed.create()
    latest = [each.table.name for each in LATEST]
    for part in tables:
        let_rows_change(part.dataset, [*latest, *(each.name for each in plan if each.tables is part)])
    with dataset.transaction():
        listed.add(person.ids, person.spelt, person.persons)
        mend_rows(plan, tables, person)
        for removal in plan:
            delete_rows(removal)


def _check_given(given: Sequence[Id]) -> None:
    fault = next(filter(None, map(fault_of, given)), None)
    if fault or not given:
        raise RunError(f"{fault or 'Expected at least one id of the person, but got none.'} Nothing was changed.")


def _check_rights(tables: Sequence[PersonTables]) -> None:
    """Raises RunError if this user cannot read every table, and all rows of those that may have rows of persons."""
    hidden = [f"{part.dataset.name}.{table}" for part in tables for table in part.dataset.unreadable()]
    if hidden:
        raise RunError(
            f"Expected the right to read all tables of the dataset, but {', '.join(hidden)} may not be read:"
            " rows of the person there would stay. Nothing was changed.\n"
            "Grant SELECT and DELETE on them, or use the role that owns them."
        )
    partly = [
        f"{part.dataset.name}.{table}"
        for part in tables
        for table in tables_that_hide_rows(part.dataset)
        if part.may_have_persons(table)
    ]
    if partly:
        raise RunError(
            f"Expected the right to see all rows of the dataset, but policies may hide some of {', '.join(partly)} from"
            " this role (row-level security): rows of the person there would stay. Nothing was changed.\n"
            "Use the role that owns the tables, or one with BYPASSRLS."
        )


def _check_types(tables: Sequence[PersonTables]) -> None:
    """Raises RunError if somebody gave a column of ids a type whose values may not match ids as they are spelt."""
    changed = [(f"{part.dataset.name}.{table}", *column) for part in tables for table, *column in part.changed_ids()]
    for table, column, native in changed:
        raise RunError(
            f"Expected the column {column} of {table} to be text, but somebody made it {shortened(native)}:"
            " rows of the person there could stay. Nothing was changed.\n"
            "Change its type back (ALTER TABLE ... ALTER COLUMN ... TYPE ... USING ...) and check its values: text made"
            " of JSON keeps its quotes. Or drop the table and load its messages again."
        )


def _check(into: dlt.Pipeline, target: Target) -> None:
    with queryable_client(into) as client:
        if not dataset_of(client).exists():
            raise DatasetNotFound(
                f"There is no dataset {into.dataset_name} in {target.path_or_url}, so nobody can be deleted from it.\n"
                "Name the one that loads go to: --destination, --credentials, --dataset."
            )
        if isinstance(client, SqlJobClientBase):
            check_books(client.sql_client)
