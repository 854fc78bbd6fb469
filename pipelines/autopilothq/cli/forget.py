"""The command that forgets a person."""

import sys
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import click

from .. import forget as forgetting
from ..display import json_text
from ..forget import Forgotten, Suppressed
from ..identity import Id, id_of
from ..inspection.formats import grid
from . import log, out
from .options import allow_http_option, destination_options, wait_option, where

LEFT = 1
HASH = 12  # characters of a hash that are shown
_KINDS = {"user_ids": "user_id", "emails": "email", "contact_ids": "contact_id"}


@click.command()
@click.option("--user-id", "user_ids", metavar="ID", multiple=True, help="The person's id in your own systems.")
@click.option("--email", "emails", metavar="EMAIL", multiple=True, help="The person's email; its case does not matter.")
@click.option("--contact-id", "contact_ids", metavar="ID", multiple=True, help="The person's id in Autopilot.")
@click.option(
    "--archive", metavar="URL", multiple=True, help="Also rewrite the files there without the person's lines."
)
@click.option(
    "--rewrite", is_flag=True, help="Write the database anew, so that its files do not keep the removed rows' bytes."
)
@click.option("--dry-run", is_flag=True, help="Tell what would be removed, and change nothing.")
@destination_options
@wait_option
@allow_http_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def forget(
    archive: tuple[str, ...],
    rewrite: bool,
    dry_run: bool,
    destination: str | None,
    credentials: str | None,
    dataset: str | None,
    wait: timedelta,
    as_json: bool,
    **given: Any,
) -> None:
    """Remove a person, and keep them out of later loads.

    Several ids are one person's. Ids that stand in one row with them are the person's too: look at --dry-run first.
    """
    place = where(destination, credentials, dataset)
    made = forgetting.forget(_ids(given), destination, credentials, dataset, archive, dry_run, wait, rewrite)
    log.summarise(_summary(made))
    if as_json:
        out.line(json_text(asdict(made) | {"ids": [id_._asdict() for id_ in made.ids], "from": place}))
    else:
        _print(made)
        out.line(f"from {place['location']}, dataset {place['dataset']}")
    if made.left:
        sys.exit(LEFT)


def _ids(given: dict[str, tuple[str, ...]]) -> list[Id]:
    ids = []
    for option, kind in _KINDS.items():
        for value in given[option]:
            if not value.strip() or (kind == "email" and "@" not in value):
                what = "an email" if kind == "email" else "an id"
                raise click.BadParameter(
                    f"Expected {what}, but got {value!r}.", param_hint=f"--{kind.replace('_', '-')}"
                )
            ids.append(id_of(kind, value))
    if not ids:
        raise click.UsageError("Who? Name the person with --user-id, --email or --contact-id.")
    return ids


def _print(made: Forgotten) -> None:
    would = "would be " if made.dry_run else ""
    found = [[id_.kind, id_.id, _how(id_), id_.hash[:HASH]] for id_ in made.ids]
    parts = [grid([["kind", "id", "found", "hash"], *found])]
    if made.shared:
        parts.append([f"{shared} is not this person's alone: it leads to nobody else" for shared in made.shared])
    if made.rows:
        parts.append(grid([["table", f"rows {would}removed"], *_counts(made.rows)]))
    if made.lines:
        parts.append(grid([["file", f"lines {would}removed"], *_counts(made.lines)]))
    if made.left:
        parts.append(
            [f"{file} stays as it is, and may hold lines of the person: {why}" for file, why in made.left.items()]
        )
    parts.append(list(filter(None, [_summary(made), made.remains])))
    out.lines([line for part in parts for line in ("", *part)][1:])


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


def _how(id_: Suppressed) -> str:
    return f"beside {id_.found_with}" if id_.found_with else "given"


def _counts(counts: dict[str, int]) -> list[list[str]]:
    return [[name, f"{count:,}"] for name, count in sorted(counts.items())]
