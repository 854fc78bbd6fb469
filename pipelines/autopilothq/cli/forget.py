"""The command that forgets a person."""

import sys
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import click

from ..display import json_text
from ..inspect.formats import grid
from ..privacy import deletion as forgetting
from ..privacy.deletion import MAX_IDS, Forgotten, Unconfirmed
from ..privacy.person import NotFollowed, Suppressed
from ..segment.identity import Id
from . import log, out
from .options import allow_http_option, destination_options, wait_option, where

LEFT = 1
HASH = 12  # characters of a hash that are shown
_KINDS = {"user_ids": "user_id", "emails": "email", "contact_ids": "contact_id", "anonymous_ids": "anonymous_id"}


@click.command()
@click.option("--user-id", "user_ids", metavar="ID", multiple=True, help="The person's id in your own systems.")
@click.option("--email", "emails", metavar="EMAIL", multiple=True, help="The person's email; its case does not matter.")
@click.option("--contact-id", "contact_ids", metavar="ID", multiple=True, help="The person's id in Autopilot.")
@click.option(
    "--anonymous-id", "anonymous_ids", metavar="ID", multiple=True, help="The id of a device of the person's."
)
@click.option(
    "--archive", metavar="URL", multiple=True, help="Also rewrite the files there without the person's lines."
)
@click.option(
    "--rewrite", is_flag=True, help="Write the database anew, so that its files do not keep the removed rows' bytes."
)
@click.option("--dry-run", is_flag=True, help="Tell what would be removed, and change nothing.")
@click.option(
    "--max-ids",
    type=click.IntRange(min=0),
    default=MAX_IDS,
    show_default=True,
    metavar="N",
    help="Refuse where more ids than these would be taken.",
)
@click.option(
    "--confirm", type=click.IntRange(min=0), metavar="N", help="Take exactly that many ids, though they are more."
)
@destination_options
@wait_option
@allow_http_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def forget(
    archive: tuple[str, ...],
    rewrite: bool,
    dry_run: bool,
    max_ids: int,
    confirm: int | None,
    destination: str | None,
    credentials: str | None,
    dataset: str | None,
    wait: timedelta,
    as_json: bool,
    **given: Any,
) -> None:
    """Remove a person, and keep them out of later loads.

    Several ids are one person's. Ids that stand in one row with them are the person's too, where nobody else's stand
    beside them: look at --dry-run first.
    """
    place = where(destination, credentials, dataset)
    try:
        made = forgetting.delete_person(
            _ids(given), destination, credentials, dataset, archive, dry_run, wait, rewrite, max_ids, confirm
        )
    except Unconfirmed as refused:
        refused.made.dry_run = True
        _tell(refused.made, [], place, as_json)
        raise
    summary = _summary(made)
    log.summarise(summary)
    _tell(made, [summary], place, as_json)
    if made.left:
        sys.exit(LEFT)


def _tell(made: Forgotten, summary: list[str], place: dict[str, str], as_json: bool) -> None:
    if as_json:
        parts = {"ids": [id_._asdict() for id_ in made.ids], "shared": [id_._asdict() for id_ in made.shared]}
        out.print_line(json_text(asdict(made) | parts | {"from": place}))
    else:
        _print(made, summary)
        out.print_line(f"from {place['location']}, dataset {place['dataset']}")


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


def _print(made: Forgotten, summary: list[str]) -> None:
    would = "would be " if made.dry_run else ""
    found = [[id_.kind, id_.id, _how(id_), id_.hash[:HASH]] for id_ in made.ids]
    parts = [grid([["kind", "id", "found", "hash"], *found])]
    if made.shared:
        parts.append(
            [
                *map(_not_followed, made.shared),
                f"Rows that have none but such ids {'would stay' if made.dry_run else 'stay'}.",
            ]
        )
    if made.rows:
        parts.append(grid([["table", f"rows {would}removed"], *_counts(made.rows)]))
    if made.lines:
        parts.append(grid([["file", f"lines {would}removed"], *_counts(made.lines)], cut=False))
    if made.left:
        parts.append(
            [f"{file} stays as it is, and may hold lines of the person: {why}" for file, why in made.left.items()]
        )
    if summary:
        parts.append([*summary, *filter(None, [made.remains])])
    out.print_lines([line for part in parts for line in ("", *part)][1:])


def _summary(made: Forgotten) -> str:
    would = "would be " if made.dry_run else ""
    removed = (
        f"{sum(made.rows.values()):,} rows and {sum(made.lines.values()):,} lines {would}removed"
        if made.rows or made.lines
        else "Nothing was found of this person"
    )
    left = f"; files that stay as they are: {len(made.left):,}" if made.left else ""
    anew = f"; files or tables written anew: {len(made.rewritten):,}" if made.rewritten else ""
    return f"{removed}; ids {would}kept out of later loads: {made.suppressed:,}{left}{anew}"


def _not_followed(shared: NotFollowed) -> str:
    return (
        f"Not followed: {shared.id} beside {shared.found_with}, because {shared.why}."
        f" If it is this person's, add {shared.option}"
    )


def _how(id_: Suppressed) -> str:
    return f"beside {id_.found_with}" if id_.found_with else "given"


def _counts(counts: dict[str, int]) -> list[list[str]]:
    return [[name, f"{count:,}"] for name, count in sorted(counts.items())]
