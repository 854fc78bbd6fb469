"""The tables are the same, however the lines are split into files, batches and runs, and in any order."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contract import generated
from contract.loading import Row, Store, message, raw, rows_of

pytestmark = pytest.mark.usefixtures("several_threads")
# A load costs more than its lines, so a few loads of many lines are cheaper than many small ones.
few = settings(max_examples=4, deadline=None)
Key = dict[str, Any]


def comparable(tables: dict[str, list[Row]], *but: str) -> dict[str, list[Key]]:
    """Returns the tables without times of loading, places in files, nulls, and the columns in `but`.

    A rejected line has a row for each of its places; only the line and the reason are compared.
    """
    but = (*but, "uuid_ts", "rejected_at", "discarded_at", "file", "line")
    found = {
        name: sorted(
            ({key: value for key, value in row.items() if key not in but and value is not None} for row in rows),
            key=lambda row: str(row.get("id")),
        )
        for name, rows in tables.items()
        if rows
    }
    if "_rejects" in found:
        lines = {(row["raw"], row["reason"], row["message"]) for row in found["_rejects"]}
        found["_rejects"] = [dict(zip(("raw", "reason", "message"), line, strict=True)) for line in sorted(lines)]
    return found


def numbered(lines: list[str]) -> list[str]:
    """Returns the lines, each with an id of its own."""
    return [line.replace("$id", f"m{number:02}") for number, line in enumerate(lines)]


# ---- the fast path and the slow one --------------------------------------------------------------------------------


@few
@given(st.lists(generated.messages(st.just('"$id"')), min_size=20, max_size=60).map(numbered))
def test_the_engine_reads_lines_as_they_are_read_one_by_one(lines: list[str]) -> None:
    """A key with a NUL makes a line irregular, and irregular lines are read by `read_message`."""
    odd = [f'{line[:-1]},"\\u0000":0}}' for line in lines]
    fast, slow = rows_of(*lines), rows_of(*odd)
    rejects = [[(row["line"], row["reason"]) for row in tables.pop("_rejects", [])] for tables in (fast, slow)]
    assert sorted(rejects[0]) == sorted(rejects[1])
    assert comparable(fast) == comparable(slow)


# ---- cuts ----------------------------------------------------------------------------------------------------------

# All values of a key have the same type, so that a column's type does not depend on which load creates it.
STEADY = {
    "a": st.sampled_from(("1", "2", '"3"', "4.0", "null")),
    "A": st.sampled_from(("5", "null")),
    "b c": st.sampled_from(('"x"', '""', "1.10", "[1.10]", "true", '"2019-03-04"')),
    "d": st.sampled_from(("{}", '{"e":1}', '{"e":{"f":"x"}}', '{"E":2}')),
    "when": st.sampled_from(('"2019-03-04T05:06:07Z"', '"soon"')),
    "transactional": st.sampled_from(("true", "0", '"maybe"', "[]")),
    "名": st.just("1"),
    "nan": st.just("NaN"),
    "email": st.sampled_from(('"a@b"', '"c@d"')),
}
# These columns exist before the loads; other tests check how the first load chooses types.
TYPED = (
    '{"a":1,"b_c":"x","b c":"y","d":{"e":1,"f":0},"d_e_f":"x","when":"2019-03-04T05:06:07Z","transactional":true,'
    '"email":"a@b"}'
)
KNOWN = [
    raw(message("$event", messageId=f"k{n}", userId="k", properties="$body"), event=event, body=TYPED)
    for n, event in enumerate(dict.fromkeys(generated.EVENTS[:-3]))
] + [
    raw(message(type=kind, messageId=kind, userId="k", **{body: "$body"}), body=TYPED)
    for kind, body in (("identify", "traits"), ("page", "properties"), ("screen", "properties"), ("group", "traits"))
]
steady = st.fixed_dictionaries({}, optional=STEADY).map(
    lambda chosen: "{" + ",".join(f'"{key}":{value}' for key, value in chosen.items()) + "}"
)


def steady_message(fields: tuple[str, str, str, str, str, str]) -> str:
    kind, event, user, received, body, clock = fields
    return (
        f'{{"type":{kind},"event":{event},"userId":{user},"receivedAt":{received},"properties":{body},"traits":{body},'
        f'"sentAt":{clock},"messageId":"$id"}}'
    )


def steady_lines(events: list[str]) -> st.SearchStrategy[list[str]]:
    """Returns a strategy for the lines of a load whose tracks have these events."""
    messages = st.tuples(
        generated.kinds,
        st.sampled_from(events),
        st.sampled_from(generated.IDS),
        st.sampled_from(generated.CLOCKS),
        steady,
        st.sampled_from(generated.CLOCKS),
    ).map(steady_message)
    line = messages | messages | messages | st.sampled_from(generated.BROKEN)
    return st.lists(line, min_size=8, max_size=24).map(numbered)


# Few events for each load, because each table takes time.
lines = st.lists(st.sampled_from(generated.EVENTS), min_size=1, max_size=3).flatmap(steady_lines)


@cache
def _known() -> Store:
    store = Store()
    store.run(KNOWN)
    return store


def known() -> Store:
    """Returns a destination that has a row of each kind, with all columns."""
    return deepcopy(_known())


def chunks(size: int) -> Callable[[int], int]:
    return lambda _: size


@few
@given(lines, st.data())
def test_any_cut_in_any_order_gives_the_same_tables(lines: list[str], data: st.DataObject) -> None:
    whole, cut = known(), known()
    whole.run(lines)
    order = data.draw(st.permutations(lines + data.draw(st.lists(st.sampled_from(lines), max_size=4))))
    seen = 0
    for _ in range(data.draw(st.integers(1, 3))):
        take = data.draw(st.integers(0, len(order)))
        run, order = order[:take], order[take:]
        at = data.draw(st.integers(0, len(run)))
        cut.run(run[:at], run[at:], chunks=chunks(data.draw(st.integers(1, 8))))
        seen += sum(count.lines for count in cut.audit)
        conserved(cut)
    cut.run(order)
    conserved(cut)
    assert seen + sum(count.lines for count in cut.audit) >= sum(count.lines for count in whole.audit)
    assert comparable(cut.tables()) == comparable(whole.tables())
    assert cut.types == whole.types


def conserved(store: Store) -> None:
    for count in store.audit:
        assert count.lines == count.stored + count.duplicates + count.rejected


IDS = st.sampled_from(('"a"', '"b"', '"c"', "null", "5"))


@few
@given(
    st.lists(generated.messages(IDS) | st.sampled_from(generated.BROKEN), min_size=10, max_size=30),
    st.randoms(),
    st.integers(4, 9),
)
@example([], Random(0), 1)
def test_every_line_is_accounted_for_and_their_order_does_not_matter(
    lines: list[str], random: Random, size: int
) -> None:
    """The messages share few ids, so most are duplicates; nothing is loaded before, so columns get their types here.

    A second load of them all adds nothing.
    """
    store = Store()
    once = comparable(store.run(lines[:7], lines[7:], chunks=chunks(8)))
    conserved(store)
    assert sum(count.lines for count in store.audit) == sum(1 for line in lines if line.strip(" \t\r\n\f"))
    assert sum(count.stored for count in store.audit) == sum(
        len(rows)
        for name, rows in store.tables().items()
        if name in ("tracks", "identifies", "aliases", "pages", "screens", "groups")
    )
    shuffled = random.sample(lines, len(lines))
    assert comparable(Store().run(shuffled, chunks=chunks(size))) == once
    assert comparable(store.run(lines)) == once
    assert sum(count.stored for count in store.audit) == 0
    conserved(store)
