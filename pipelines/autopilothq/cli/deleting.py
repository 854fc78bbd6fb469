"""Runs `forget`, which deletes a person, and prints what was removed."""

import sys
from dataclasses import asdict
from datetime import timedelta

import click

from ..display import json_text, plural
from ..inspect.formats import grid
from ..privacy import deletion
from ..privacy.deletion import Confirmation, PersonDeletion, Unconfirmed
from ..privacy.person import NotFollowed, Suppressed, fault_of
from ..segment.identity import Id
from ..warehouses.settings import TargetOptions
from . import notes, out
from .options import describe_target, freeze_modules

SHOWN_HASH = 12  # characters of a hash that are shown
_KINDS = {"user_ids": "user_id", "emails": "email", "contact_ids": "contact_id", "anonymous_ids": "anonymous_id"}


def delete(
    given: dict[str, tuple[str, ...]],
    target: TargetOptions,
    archive: tuple[str, ...],
    dry_run: bool,
    wait: timedelta,
    rewrite: bool,
    confirmation: Confirmation,
    as_json: bool,
) -> None:
    """Deletes the person with the given ids, and prints what was removed. Exits with 1 if files were not rewritten."""
    freeze_modules()
    location = describe_target(target)
    try:
        report = deletion.delete_person(_ids(given), target, archive, dry_run, wait, rewrite, confirmation)
    except Unconfirmed as refused:
        refused.made.dry_run = True
        _print(refused.made, [], location, as_json)
        raise
    summary = _summary(report)
    notes.summarise(summary)
    _print(report, [summary], location, as_json)
    if report.left:
        sys.exit(out.NEEDS_ATTENTION)


def _print(report: PersonDeletion, summary: list[str], location: dict[str, str], as_json: bool) -> None:
    if as_json:
        parts = {"ids": [id_._asdict() for id_ in report.ids], "shared": [id_._asdict() for id_ in report.shared]}
        out.print_line(json_text(asdict(report) | parts | {"from": location}))
    else:
        _print_text(report, summary)
        out.print_line(f"from {location['location']}, dataset {location['dataset']}")


def _ids(given: dict[str, tuple[str, ...]]) -> list[Id]:
    ids = []
    for option, kind in _KINDS.items():
        for value in given[option]:
            ids.append(Id(kind, value))
            if fault := fault_of(ids[-1]):
                raise click.BadParameter(fault, param_hint=f"--{kind.replace('_', '-')}")
    if not ids:
        raise click.UsageError("Who? Name the person with --user-id, --email, --contact-id or --anonymous-id.")
    return ids


def _print_text(report: PersonDeletion, summary: list[str]) -> None:
    would = "would be " if report.dry_run else ""
    found = [[id_.kind, id_.id, _how_found(id_), id_.hash[:SHOWN_HASH]] for id_ in report.ids]
    parts = [grid([["kind", "id", "found", "hash"], *found])]
    if report.shared:
        parts.append(
            [
                *map(_not_followed, report.shared),
                f"Rows that have only such ids {'would stay' if report.dry_run else 'stay'}.",
            ]
        )
    if report.rows:
        parts.append(grid([["table", f"rows {would}removed"], *_counts(report.rows)]))
    if report.lines:
        parts.append(grid([["file", f"lines {would}removed"], *_counts(report.lines)], cut=False))
    if report.left:
        parts.append(
            [f"{file} stays as it is, and may hold lines of the person: {why}" for file, why in report.left.items()]
        )
    if summary:
        parts.append([*summary, *filter(None, [report.remains])])
    out.print_lines([line for part in parts for line in ("", *part)][1:])


def _summary(report: PersonDeletion) -> str:
    would = "would be " if report.dry_run else ""
    removed = (
        f"{plural(sum(report.rows.values()), 'row')} and {plural(sum(report.lines.values()), 'line')} {would}removed"
        if report.rows or report.lines
        else "Nothing was found of this person"
    )
    left = f"; files that stay as they are: {len(report.left):,}" if report.left else ""
    rewritten = f"; files or tables rewritten: {len(report.rewritten):,}" if report.rewritten else ""
    return f"{removed}; ids {would}kept out of later loads: {report.suppressed:,}{left}{rewritten}"


def _not_followed(shared: NotFollowed) -> str:
    return (
        f"Not followed: {shared.id} beside {shared.found_with}, because {shared.why}."
        f" If it is this person's, add {shared.option}"
    )


def _how_found(id_: Suppressed) -> str:
    return f"beside {id_.found_with}" if id_.found_with else "given"


def _counts(counts: dict[str, int]) -> list[list[str]]:
    return [[name, f"{count:,}"] for name, count in sorted(counts.items())]
