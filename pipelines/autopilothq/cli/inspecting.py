"""Runs `schema` and `status`: prints what they read from the catalogue and from a destination."""

import itertools
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import click

from .. import inspect, upgrade
from ..display import json_text, nearest, plural, shortened
from ..errors import DatasetNotFound
from ..explain import explained
from ..inspect import Difference, Status
from ..warehouses.dataset import tables_of
from ..warehouses.settings import TargetOptions, dataset_name
from . import log, out
from .options import credentials_of, describe_target


def print_tables(tables: tuple[str, ...], form: str, live: bool, target: TargetOptions, wait: timedelta) -> None:
    """Prints tables of the catalogue or of the destination in a format, all of them if `tables` is empty."""
    if live:
        with inspect.reading(*target, wait=wait) as reader:
            existing, name = list(tables_of(reader)), reader.name
            found = inspect.described_tables(reader, tables)
        _check_names(tables, existing, f"The dataset {name}")
    else:
        found, name = inspect.catalogue(), dataset_name(target.dataset)
        _check_names(tables, [table.name for table in found], "The catalogue")
        found = [table for table in found if not tables or table.name in tables]
    if form == "sql":
        with explained():
            out.document(inspect.ddl(found, *inspect.destination_of(target)))
    elif form == "table":
        out.document(inspect.as_table(found, name, out.width()))
    else:
        out.document(inspect.FORMATS[form](found, name))


def _check_names(names: Sequence[str], existing: Sequence[str], where: str) -> None:
    for name in names:
        if name not in existing:
            raise click.BadParameter(f"{where} has no table {name}: {nearest(name, existing)}", param_hint="TABLE")


def print_differences(against: str | None, target: TargetOptions, wait: timedelta) -> None:
    """Prints the differences from the schema that queries were written for. Exits with 1 if one breaks queries."""
    compared = _with_catalogue(target, wait) if against is None else _with_dataset(against, target, wait)
    found = inspect.differences(
        compared.queried, compared.schema, compared.messages, compared.not_yet, compared.dialect
    )
    out.print_lines([f"queries for  {compared.queried_name}", f"run on       {compared.schema_name}", ""])
    out.print_lines([*difference_groups(found), breaking_counts(found, "queries")])
    if any(difference.breaks for difference in found):
        sys.exit(out.NEEDS_ATTENTION)


class _Comparison(NamedTuple):
    """Two schemas to compare: the one that queries were written for, and the one that they run on."""

    queried_name: str
    queried: inspect.Schema
    schema_name: str
    schema: inspect.Schema
    dialect: str | None
    messages: inspect.DifferenceMessages
    not_yet: frozenset[str] = frozenset()


def _with_catalogue(target: TargetOptions, wait: timedelta) -> _Comparison:
    with inspect.reading(*target, wait=wait) as reader:
        schema = inspect.schema_of(reader)
    catalogue = inspect.schema_of_catalogue(reader.kind, reader.dialect)
    return _Comparison(
        "the catalogue", catalogue, reader.title, schema, reader.dialect, inspect.CATALOGUE, inspect.LATER
    )


def _with_dataset(against: str, target: TargetOptions, wait: timedelta) -> _Comparison:
    dataset, _, credentials = against.partition("/")
    with inspect.reading_other(dataset, credentials and credentials_of(credentials), target, wait) as reader:
        queried_name, queried = reader.title, inspect.schema_of(reader)
    try:
        with inspect.reading(*target, wait=wait) as reader:
            schema = inspect.schema_of(reader)
    except DatasetNotFound:
        kind, dialect = inspect.kind_of(target)
        schema, name = inspect.schema_of_catalogue(kind, dialect), "the catalogue, because nothing was loaded yet"
        return _Comparison(queried_name, queried, name, schema, dialect, inspect.SWITCH_UNLOADED)
    return _Comparison(queried_name, queried, reader.title, schema, reader.dialect, inspect.SWITCH)


def upgrade_tables(dry_run: bool, target: TargetOptions, wait: timedelta) -> None:
    """Upgrades the tables, and prints each statement before it runs."""
    location = describe_target(target)
    done = upgrade.upgrade(target, dry_run, wait, lambda text: out.print_lines([f"{text};", ""]))
    for table, why in done.left.items():
        out.print_lines([f"{shortened(table)} stays as it is: {why}.", ""])
    count = len(done.statements)
    would = "would be " if dry_run else ""
    summary = f"{plural(count, 'statement')} {would}run" if count else "Nothing to upgrade"
    out.print_line(f"{summary} in {location['location']}, dataset {location['dataset']}.")
    if done.left:
        sys.exit(out.NEEDS_ATTENTION)


def breaking_counts(found: Sequence[Difference], what: str) -> str:
    """Returns a sentence that counts the differences that break something, and the others."""
    breaking = sum(difference.breaks for difference in found)
    others = len(found) - breaking
    broken = f"{plural(breaking, 'difference')} break{'s' * (breaking == 1)} {what}"
    return f"{broken}, {others:,} do{'es' * (others == 1)} not."


def difference_groups(found: Sequence[Difference]) -> list[str]:
    """Returns lines about the differences that break queries, then about the others; an empty line ends each group."""
    lines = []
    for title, breaks in (("breaks queries", True), ("breaks nothing", False)):
        if group := [difference for difference in found if difference.breaks is breaks]:
            lines += [f"{title}:", *_by_meaning(group), ""]
    return lines


def _by_meaning(found: Sequence[Difference]) -> list[str]:
    """Returns lines about differences, grouped by their meaning, with a line for each table."""
    kinds: dict[tuple[str, str, str], list[Difference]] = {}
    for difference in found:
        what = "column" if difference.column else "table"
        kinds.setdefault((difference.change, what, difference.meaning), []).append(difference)
    lines = []
    for (change, what, meaning), group in kinds.items():
        heads = {"type": f"type {meaning}", "key": f"missing {meaning}"}
        lines.append(f"  {heads.get(change, f'{change} {what}, {meaning}')}")
        if what == "table":
            lines.append(f"    {', '.join(shortened(difference.table) for difference in group)}")
            continue
        for table, columns in itertools.groupby(group, key=lambda difference: difference.table):
            names = ", ".join(shortened(difference.column) for difference in columns)
            lines.append(f"    {shortened(table)}: {names}")
    return lines


def print_status(
    max_age: timedelta | None,
    received: str | None,
    ask_ortto: bool,
    as_json: bool,
    target: TargetOptions,
    wait: timedelta,
) -> None:
    """Prints the status of loads and of a receiver's folder. Exits with 1 if the newest load is older than `max_age`.

    With `ask_ortto`, it fetches Ortto's current counts of each campaign.
    """
    with inspect.reading(*target, wait=wait, warn=log.warn) as reader:
        found = inspect.read_status(reader, datetime.now(UTC))
        found.received = inspect.read_received(reader, received) if received is not None else None
        if ask_ortto:
            from .ortto_status import fetch_ortto_campaigns

            found.campaigns = fetch_ortto_campaigns(reader, found.now)
    out.document(json_text(inspect.status_dict(found, max_age)) if as_json else inspect.status_text(found, out.width()))
    if max_age is not None and found.is_older(max_age):
        if not as_json:
            out.print_lines(["", _stale(found, max_age)])
        sys.exit(out.NEEDS_ATTENTION)


def _stale(found: Status, max_age: timedelta) -> str:
    if found.newest_load is None:
        return "Too old: no row was loaded yet."
    if found.is_ahead:
        return "Too old: the time of the newest load is in the future, because a clock was wrong."
    since = inspect.age(found.now - found.newest_load)
    return f"Too old: the newest load was {since} ago, more than {inspect.age(max_age)}."
