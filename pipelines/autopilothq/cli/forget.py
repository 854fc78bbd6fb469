"""The command that deletes a person."""

import sys
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import click

from ..display import json_text
from ..inspect.formats import grid
from ..privacy import deletion
from ..privacy.deletion import MAX_IDS, PersonDeletion, Unconfirmed
from ..privacy.person import NotFollowed, Suppressed
from ..segment.identity import Id
from . import log, out
from .options import TargetOptions, allow_http_option, describe_target, json_option, target_options, wait_option

SHOWN_HASH = 12  # characters
_KINDS = {"user_ids": "user_id", "emails": "email", "contact_ids": "contact_id", "anonymous_ids": "anonymous_id"}


@click.command()
@click.option("--user-id", "user_ids", metavar="ID", multiple=True, help="The person's id in your own systems.")
@click.option("--email", "emails", metavar="EMAIL", multiple=True, help="The person's email; its case does not matter.")
@click.option("--contact-id", "contact_ids", metavar="ID", multiple=True, help="The person's id in Autopilot.")
@click.option(
    "--anonymous-id", "anonymous_ids", metavar="ID", multiple=True, help="The id of one of the person's devices."
)
@click.option(
    "--archive", metavar="URL", multiple=True, help="Also rewrite the files there without the person's lines."
)
@click.option(
    "--rewrite", is_flag=True, help="Write the database anew, so that its files do not keep the removed rows' bytes."
)
@click.option("--dry-run", is_flag=True, help="Report what would be removed, and change nothing.")
@click.option(
    "--max-ids",
    type=click.IntRange(min=0),
    default=MAX_IDS,
    show_default=True,
    metavar="N",
    help="Refuse if the person has more ids than this.",
)
@click.option(
    "--confirm",
    type=click.IntRange(min=0),
    metavar="N",
    help="Remove the person although the ids are more than --max-ids, if they are exactly this many.",
)
@target_options
@wait_option
@allow_http_option
@json_option
def forget(
    archive: tuple[str, ...],
    rewrite: bool,
    dry_run: bool,
    max_ids: int,
    confirm: int | None,
    target: TargetOptions,
    wait: timedelta,
    as_json: bool,
    **given: Any,
) -> None:
    """Remove a person, and keep them out of later loads.

    All given ids are of one person. An id in the same row as one of them is the person's too, unless it also appears
    with ids of others: look at --dry-run first.
    """
    location = describe_target(target)
    try:
        report = deletion.delete_person(_ids(given), *target, archive, dry_run, wait, rewrite, max_ids, confirm)
    except Unconfirmed as refused:
        refused.made.dry_run = True
        _print(refused.made, [], location, as_json)
        raise
    summary = _summary(report)
    log.summarise(summary)
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
            if not value.strip() or (kind == "email" and "@" not in value):
                what = "an email" if kind == "email" else "an id"
                raise click.BadParameter(
                    f"Expected {what}, but got {value!r}.", param_hint=f"--{kind.replace('_', '-')}"
                )
            ids.append(Id(kind, value))
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
                f"Rows that have none but such ids {'would stay' if report.dry_run else 'stay'}.",
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
        f"{sum(report.rows.values()):,} rows and {sum(report.lines.values()):,} lines {would}removed"
        if report.rows or report.lines
        else "Nothing was found of this person"
    )
    left = f"; files that stay as they are: {len(report.left):,}" if report.left else ""
    anew = f"; files or tables written anew: {len(report.rewritten):,}" if report.rewritten else ""
    return f"{removed}; ids {would}kept out of later loads: {report.suppressed:,}{left}{anew}"


def _not_followed(shared: NotFollowed) -> str:
    return (
        f"Not followed: {shared.id} beside {shared.found_with}, because {shared.why}."
        f" If it is this person's, add {shared.option}"
    )


def _how_found(id_: Suppressed) -> str:
    return f"beside {id_.found_with}" if id_.found_with else "given"


def _counts(counts: dict[str, int]) -> list[list[str]]:
    return [[name, f"{count:,}"] for name, count in sorted(counts.items())]
