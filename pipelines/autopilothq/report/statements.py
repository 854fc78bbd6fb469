"""Renders the report's queries: SQL files over the relations of the models, for any dialect.

The files are in the models' dialect. `email_events`, `person_email` and so on are the models' relations, and
`{measures}` and the like stand for the models' definitions of numbers, so that each number is defined only there. The
report adds the filter of `MailScope`.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib import resources
from typing import NamedTuple, cast

import sqlglot
from sqlglot import exp

from ..models import Existing, in_dialect, point
from ..models.render import expanded, relations, time_literal, with_relations
from ..utc import DAY_SECONDS

_BASE = "duckdb"  # the models' dialect
_EVENTS = "email_events"
SENT = ("email_delivered", "email_bounced")
# For dialects in which sqlglot does not know it: the function for the seconds since 1970, and its leading arguments.
_SINCE_1970 = (exp.var("SECOND"), exp.Literal.string("1970-01-01"))
_EPOCH: dict[str, tuple[str, tuple[exp.Expr, ...]]] = {
    "bigquery": ("UNIX_SECONDS", ()),
    "clickhouse": ("toFloat64", ()),
    "fabric": ("DATEDIFF_BIG", _SINCE_1970),
    "mysql": ("TIMESTAMPDIFF", _SINCE_1970),
    "tsql": ("DATEDIFF_BIG", _SINCE_1970),
}
# Relations that are parts of models.
_MODEL_OF = {
    "email_overview_names": "email_overview",
    "journey_overview_names": "journey_overview",
    "link_overview_clicked": "link_overview",
}


class MailScope(NamedTuple):
    """The events that a query counts.

    Mail counts if it was sent at or after `since` and before `until`. Opens, clicks and other events count at or after
    `since`, even after `until`. `journeys` are the ids of the journeys that count, or None for all. Events dated a day
    or more after their receipt count only with `ahead`.
    """

    since: datetime | None = None
    until: datetime | None = None
    journeys: Sequence[str] | None = None
    ahead: bool = False


class Names(NamedTuple):
    """How a destination names things: `path` returns the parts of a table's name, `spelling` a column's name."""

    dialect: str
    path: Callable[[str], Sequence[str]]
    spelling: Callable[[str, str], str]


def statement(
    name: str, existing: Existing, scope: MailScope, names: Names, values: Mapping[str, str]
) -> tuple[str, list[str]]:
    """Returns the statement of a file in `queries` for a destination, and the names of its columns.

    `values` are for the `{placeholders}` in the file.
    """
    found = cast(exp.Query, sqlglot.parse_one(expanded(_query_file(name), values), dialect=_BASE))
    own = found.args.pop("with_", None)
    inside: dict[str, exp.Query] = {cte.alias: cte.this for cte in own.expressions} if own else {}
    read = [table.name for part in (found, *inside.values()) for table in part.find_all(exp.Table)]
    parts = relations((_MODEL_OF.get(name, name) for name in read if name not in inside), existing)
    parts[_EVENTS] = _limited(parts[_EVENTS], scope)
    columns = list(found.named_selects)
    return _written(with_relations(found, parts | inside), names), columns


@cache
def _query_file(name: str) -> str:
    """Returns the text of a file in `queries`."""
    return resources.files(__package__).joinpath(f"queries/{name}.sql").read_text(encoding="utf-8")


def _limited(events: exp.Query, scope: MailScope) -> exp.Query:
    """Returns a query of the events in the scope."""
    conditions = []
    if scope.since:
        conditions.append(f"occurred_at >= {time_literal(scope.since)}")
    if scope.until:
        sent = ", ".join(f"'{event}'" for event in SENT)
        conditions.append(f"(occurred_at < {time_literal(scope.until)} OR event NOT IN ({sent}))")
    if not scope.ahead:
        conditions.append(f"coalesce(epoch(occurred_at) - epoch(received_at), 0) < {DAY_SECONDS}")
    if scope.journeys is not None:
        listed = ", ".join(exp.Literal.string(journey).sql(dialect=_BASE) for journey in scope.journeys)
        conditions.append(f"campaign_id IN ({listed})" if listed else "1 = 0")
    limited = exp.select("*").from_(events.subquery("events_of", copy=False), copy=False)
    return limited.where(*conditions, dialect=_BASE, copy=False)


def _written(found: exp.Query, names: Names) -> str:
    """Renders a statement in the destination's dialect, with its names."""
    point(found, names.path, names.spelling)
    function, before = _EPOCH.get(names.dialect, ("", ()))
    for node in list(found.find_all(exp.TimeToUnix)) if function else ():
        node.replace(exp.Anonymous(this=function, expressions=[*(argument.copy() for argument in before), node.this]))
    # Otherwise DuckDB copies all columns of all events if they are read twice.
    for cte in found.find_all(exp.CTE) if names.dialect == "duckdb" else ():
        if cte.alias == _EVENTS:
            cte.set("materialized", False)
    return in_dialect(found, names.dialect)
