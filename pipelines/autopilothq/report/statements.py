"""The report's questions as SQL: files of this room over the relations of the models, for any dialect.

The files are in the models' dialect. `email_events`, `person_email` and so on are the models' relations, `{measures}`
and the like their definitions of numbers, so that a number is defined there alone. What the report adds is which events
count: those of `MailScope`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import NamedTuple, cast

import sqlglot
from sqlglot import exp

from ..models import Existing, in_dialect, point, query
from ..models.render import file
from .wording import DAY_SECONDS

_BASE = "duckdb"  # the models' dialect
_EVENTS = "email_events"
SENT = ("email_delivered", "email_bounced")
# The function for the seconds since 1970, where sqlglot does not know the dialect's, with what stands before the time.
_SINCE_1970 = (exp.var("SECOND"), exp.Literal.string("1970-01-01"))
_EPOCH: dict[str, tuple[str, tuple[exp.Expr, ...]]] = {
    "bigquery": ("UNIX_SECONDS", ()),
    "clickhouse": ("toUnixTimestamp", ()),
    "fabric": ("DATEDIFF_BIG", _SINCE_1970),
    "mysql": ("TIMESTAMPDIFF", _SINCE_1970),
    "tsql": ("DATEDIFF_BIG", _SINCE_1970),
}
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


_PARTS = {"email_overview_names": "email_overview", "link_overview_clicked": "link_overview"}
_PARTS_READ = ("email_overview_spellings",)


class MailScope(NamedTuple):
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
    """How a destination writes names: the parts of a table's name, and a column's of a table."""

    dialect: str
    path: Callable[[str], Sequence[str]]
    spelling: Callable[[str, str], str]


def statement(
    name: str, existing: Existing, scope: MailScope, names: Names, values: Mapping[str, str]
) -> tuple[str, list[str]]:
    """Returns one of the files of `queries` as one statement, and the names of its columns.

    `values` are for the `{placeholders}` in it.
    """
    found = cast(exp.Query, sqlglot.parse_one(_filled(name, values), dialect=_BASE))
    parts: dict[str, exp.Expr] = {}
    own = found.args.pop("with_", None)
    own_ctes = {cte.alias: cte.this for cte in (own.expressions if own else ())}
    for table in (
        *found.find_all(exp.Table),
        *(table for cte in own_ctes.values() for table in cte.find_all(exp.Table)),
    ):
        if table.name not in own_ctes:
            _add(table.name, existing, parts)
    if _EVENTS in parts:
        parts[_EVENTS] = _limited(parts[_EVENTS], scope)
    parts |= own_ctes
    ctes = [_cte(of, part, names.dialect) for of, part in parts.items()]
    found.set("with_", exp.With(expressions=ctes))
    columns = list(found.named_selects)
    return _written(found, names), columns


def _cte(name: str, part: exp.Expr, dialect: str) -> exp.CTE:
    cte = exp.CTE(this=part, alias=exp.TableAlias(this=exp.to_identifier(name)))
    if name == _EVENTS and dialect in ("duckdb", "postgres"):
        # Both would copy all columns of all events where they are read twice.
        cte.set("materialized", False)
    return cte


def _filled(name: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda of: values[of[1]] if of[1] in values else _definition(of[1]), query_file(name))


def _definition(name: str) -> str:
    """Returns a file of the models that other files put into theirs, or the names of all measures."""
    if name == "measured":
        return ", ".join(re.findall(r"AS (\w+),?$", file("measures"), re.MULTILINE))
    return re.sub("^--.*\n", "", file(name), flags=re.MULTILINE).strip()


@cache
def query_file(name: str) -> str:
    """Returns the text of a file of `queries`."""
    return resources.files(__package__).joinpath(f"queries/{name}.sql").read_text(encoding="utf-8")


def _add(relation: str, existing: Existing, parts: dict[str, exp.Expr]) -> None:
    """Adds a relation of the models, and all that it reads. `_PARTS` are relations inside of models."""
    model = _PARTS.get(relation, relation)
    found = query(model, existing)
    inside = found.args.pop("with_", None)
    for cte in inside.expressions if inside else ():
        # Not what only other parts of the model read.
        if model == relation or not cte.alias.startswith(model) or cte.alias in (relation, *_PARTS_READ):
            parts.setdefault(cte.alias, cte.this)
    if model == relation:
        parts.setdefault(model, found)


def _limited(events: exp.Expr, scope: MailScope) -> exp.Query:
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
        conditions.append(f"coalesce(epoch(occurred_at) - epoch(received_at), 0) < {DAY_SECONDS}")
    if scope.journeys is not None:
        listed = ", ".join(exp.Literal.string(one).sql(dialect=_BASE) for one in scope.journeys)
        conditions.append(f"campaign_id IN ({listed})" if listed else "1 = 0")
    text = "SELECT * FROM (SELECT 1 AS events) AS events_of" + (f" WHERE {' AND '.join(conditions)}" * bool(conditions))
    limited = cast(exp.Query, sqlglot.parse_one(text, dialect=_BASE))
    cast(exp.Subquery, limited.find(exp.Subquery)).set("this", events)
    return limited


def time_literal(at: datetime) -> str:
    """Returns a time as the models' dialect writes it."""
    return f"CAST('{at.astimezone(UTC).isoformat(sep=' ')}' AS TIMESTAMPTZ)"


def _written(found: exp.Query, names: Names) -> str:
    """Returns the statement in the destination's dialect, with its names."""
    point(found, names.path, names.spelling)
    function, before = _EPOCH.get(names.dialect, ("", ()))
    for node in list(found.find_all(exp.TimeToUnix)) if function else ():
        node.replace(exp.Anonymous(this=function, expressions=[*(one.copy() for one in before), node.this]))
    return in_dialect(found, names.dialect)
