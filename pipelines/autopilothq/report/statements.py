"""The report's questions as SQL: files of this room over the relations of the models, for any dialect.

The files are in the models' dialect. `email_events`, `person_email` and so on are the models' relations, `{measures}`
and the like their definitions of numbers, so that a number is defined there alone. What the report adds is which events
count: those of `Scope`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import NamedTuple

import sqlglot
from sqlglot import exp

from ..models.render import BASE, Existing, file, query, raw_tables

EVENTS = "email_events"
DAY = 86_400  # seconds
SENT = ("email_delivered", "email_bounced")
# The seconds since 1970 of a time, where sqlglot does not know the dialect's word.
_EPOCH = {
    "bigquery": "UNIX_SECONDS({0})",
    "clickhouse": "toUnixTimestamp({0})",
    "fabric": "DATEDIFF_BIG(SECOND, '1970-01-01', {0})",
    "mysql": "TIMESTAMPDIFF(SECOND, '1970-01-01', {0})",
    "sqlite": "CAST(strftime('%s', {0}) AS REAL)",
    "tsql": "DATEDIFF_BIG(SECOND, '1970-01-01', {0})",
}
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class Scope(NamedTuple):
    """Which events count.

    Mail counts that was sent from `since` on and before `until`; what people did with it counts from `since` on, also
    after `until`. Of `journeys` only those with these ids count, None being all. Events that claim to be more than a
    day later than they were received count only with `ahead`.
    """

    since: datetime | None = None
    until: datetime | None = None
    journeys: Sequence[str] | None = None
    ahead: bool = False


class Names(NamedTuple):
    """How a destination writes names: of tables, qualified and quoted, and of a table's columns, quoted."""

    dialect: str
    table: Callable[[str], str]
    column: Callable[[str, str], str]


def statement(
    name: str, existing: Existing, scope: Scope, names: Names, values: Mapping[str, str]
) -> tuple[str, list[str]]:
    """Returns one of the files of `queries` as one statement, and the names of its columns.

    `values` are for the `{placeholders}` in it.
    """
    found = sqlglot.parse_one(_filled(name, values), dialect=BASE)
    assert isinstance(found, exp.Query)
    parts: dict[str, exp.Expr] = {}
    own = found.args.pop("with_", None)
    own_ctes = {cte.alias: cte.this for cte in (own.expressions if own else ())}
    for table in (*found.find_all(exp.Table), *(table for cte in own_ctes.values() for table in cte.find_all(exp.Table))):
        if table.name not in own_ctes:
            _add(table.name, existing, parts)
    if EVENTS in parts:
        parts[EVENTS] = _limited(parts[EVENTS], scope)
    parts |= own_ctes
    ctes = [exp.CTE(this=part, alias=exp.TableAlias(this=exp.to_identifier(of))) for of, part in parts.items()]
    found.set("with_", exp.With(expressions=ctes))
    return _written(found, names), list(found.named_selects)


def _filled(name: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda of: values[of[1]] if of[1] in values else _definition(of[1]), query_file(name))


def _definition(name: str) -> str:
    """Returns a file of the models that other files put into theirs, without its comment."""
    return re.sub("^--.*\n", "", file(name), flags=re.MULTILINE).strip()


@cache
def query_file(name: str) -> str:
    """Returns the text of a file of `queries`."""
    return resources.files(__package__).joinpath(f"queries/{name}.sql").read_text(encoding="utf-8")


def _add(relation: str, existing: Existing, parts: dict[str, exp.Expr]) -> None:
    """Adds a relation of the models, and all that it reads. `email_overview_names` is a part of `email_overview`."""
    model = "email_overview" if relation == "email_overview_names" else relation
    found = query(model, existing)
    inside = found.args.pop("with_", None)
    for cte in inside.expressions if inside else ():
        if model == relation or cte.alias != "email_overview_totals":
            parts.setdefault(cte.alias, cte.this)
    if model == relation:
        parts.setdefault(model, found)


def _limited(events: exp.Expr, scope: Scope) -> exp.Query:
    """Returns the events that count."""
    sent = ", ".join(f"'{event}'" for event in SENT)
    conditions = [
        template.format(time_literal(at), sent)
        for template, at in (
            ("occurred_at >= {0}", scope.since),
            ("(occurred_at < {0} OR event NOT IN ({1}))", scope.until),
        )
        if at
    ]
    if not scope.ahead:
        conditions.append(f"epoch(occurred_at) - epoch(received_at) < {DAY}")
    if scope.journeys is not None:
        listed = ", ".join(exp.Literal.string(one).sql(dialect=BASE) for one in scope.journeys)
        conditions.append(f"campaign_id IN ({listed})" if listed else "1 = 0")
    text = "SELECT * FROM (SELECT 1 AS events) AS events_of" + (f" WHERE {' AND '.join(conditions)}" * bool(conditions))
    limited = sqlglot.parse_one(text, dialect=BASE)
    inner = limited.find(exp.Subquery)
    assert isinstance(limited, exp.Query) and inner is not None
    inner.set("this", events)
    return limited


def time_literal(at: datetime) -> str:
    """Returns a time as the models' dialect writes it."""
    return f"CAST('{at.astimezone(UTC).isoformat(sep=' ')}' AS TIMESTAMPTZ)"


def _written(found: exp.Query, names: Names) -> str:
    """Returns the statement in the destination's dialect, with its names."""
    for table in raw_tables(found):
        select = table.parent_select
        for column in list(select.find_all(exp.Column)) if select else ():
            if column.this.quoted:
                column.replace(exp.Var(this=names.column(table.name, column.name)))
        table.replace(exp.to_table(names.table(table.name), dialect=names.dialect))
    template = _EPOCH.get(names.dialect)
    for node in list(found.find_all(exp.TimeToUnix)) if template else ():
        node.replace(exp.Var(this=str(template).format(node.this.sql(dialect=names.dialect))))
    return found.sql(dialect=names.dialect, comments=False)
