"""A projection calls each step with what it needs, and returns the results."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autopilothq.catalog import LIMITS, MAX_EVENT_TABLES, MESSAGE_TABLES
from autopilothq.projection import RefusedIds, TableRows, deduplicate, projection, unreadable
from autopilothq.projection.context import ProjectionContext
from autopilothq.projection.deduplicate import LeftOut
from autopilothq.projection.line_reader import LineReader
from autopilothq.projection.projection import open_load, write_all_rows
from autopilothq.segment.identity import NOBODY, HashedIds, Id, hash_of
from contract.loading import NOW, batches, identify, message, new_projection

OWN = [table.name for table in MESSAGE_TABLES]
LINES = [
    message("Opened It", messageId="a", properties={"note": "a\0b"}), message("Opened It", messageId="b"),
    message("Clicked", messageId="c"), message("Clicked", messageId="d"), message("Clicked", messageId="e"),
    message("購入", messageId="f"), identify(messageId="g", traits={"t": 1}),
]  # fmt: skip


class Steps:
    """A projection of LINES whose steps are recorded by their names instead of run."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = str(folder), patch
        self.called: dict[str, tuple[Any, ...]] = {}
        self.opened: list[LineReader] = []
        self.closed: list[LineReader] = []
        opened, closed = self.opened, self.closed

        class Counted(LineReader):
            def __init__(self, con: Any) -> None:
                super().__init__(con)
                opened.append(self)

            def close(self) -> None:
                closed.append(self)
                super().close()

        patch.setattr(projection, "LineReader", Counted)
        self.made = new_projection(self.folder, memory=150, shorten=lambda name: name[:7], limits=LIMITS["postgres"])
        for batch in batches([LINES], lambda count: count // 2 + 1):
            self.made.add(batch)

    def note(self, where: Any, name: str, gives: Any = None) -> None:
        """Has a step recorded instead of run."""

        def step(*given: Any) -> Any:
            self.called[name] = given
            return gives

        self.patch.setattr(where, name, step)

    def settings(self, context: ProjectionContext) -> tuple[Any, ...]:
        """Returns DuckDB's memory, threads and folder."""
        [found] = context.con.execute(
            "SELECT current_setting('memory_limit'), current_setting('threads'), current_setting('temp_directory')"
        ).fetchall()
        return tuple(found)


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Steps]:
    found = Steps(tmp_path, monkeypatch)
    yield found
    found.made.close()


def test_threads_that_add_lines_share_readers(steps: Steps) -> None:
    assert (len(steps.opened), steps.closed) == (1, [])
    steps.note(projection, "deduplicate")
    steps.made.deduplicate()
    assert steps.closed == steps.opened
    steps.made.add(next(batches([[message()]])))
    steps.made.close()
    assert steps.closed == steps.opened == [steps.closed[0], steps.closed[1]]


def test_what_is_deduplicated_with_which_settings(steps: Steps) -> None:
    steps.note(projection, "deduplicate", "the rows")
    steps.note(deduplicate, "leave_out")
    context = steps.made._context
    assert (context.scratch, context.memory, context.loaded_at) == (steps.folder, 150, NOW.isoformat())
    assert [context.event_table(key) for key in ("opened_it", "購入")] == ["opened_", ""]
    assert context.shorten("a_long_name") == "a_long_"
    assert steps.made._parser._turns.most == 2
    assert steps.settings(context) == ("143.0 MiB", 1, f"{steps.folder}/spill")
    known: Any = {"tracks": {"id": "text"}}
    hashes, stored = HashedIds([("salt", "hash")]), lambda *_: iter(())
    lines = lambda numbers: [(number, b"") for number in numbers]  # noqa: E731
    left_out = LeftOut(hashes, RefusedIds({"a": "no"}, {"users": {}}), lines)
    found = steps.made.deduplicate(known, stored, ["1"], left_out, {"tracks": 9}, ["x"], 7)
    assert str(found) == "the rows"
    [opened, *rest] = steps.called.pop("deduplicate")
    assert rest == [stored, ["1"], ["x"], 7]
    assert (opened.existing, opened.limits, opened.widths) == (known, LIMITS["postgres"], {"tracks": 9})
    assert (opened.threads, opened.tables.names) == (1, [*OWN, "opened_", "clicked"])
    assert steps.called == {"leave_out": (opened, left_out)}


@pytest.mark.parametrize(("small", "threads"), [(0, 2), (1, 1)])
def test_a_small_load_takes_one_thread_and_asks_nothing_that_is_not_given(
    steps: Steps, small: int, threads: int
) -> None:
    steps.note(projection, "deduplicate")
    steps.note(deduplicate, "reject_messages")  # only refused messages and deleted persons need this step
    steps.patch.setattr(projection, "open_load", lambda context: context)
    steps.patch.setattr(projection, "SMALL_LOAD", steps.made._context.cells.size() + small)
    steps.made.deduplicate(left_out=LeftOut(refused=RefusedIds({}, {"users": {}})))
    [context, *rest] = steps.called.pop("deduplicate")
    assert rest == [None, (), (), MAX_EVENT_TABLES]
    assert (context.existing, context.limits, context.widths) == ({}, LIMITS["postgres"], {})
    assert (context.threads, steps.settings(context)[1]) == (threads, threads)
    assert steps.called == {}


def test_refused_rows_alone_are_rejected_too(steps: Steps) -> None:
    steps.note(projection, "deduplicate")
    steps.note(deduplicate, "leave_out")
    rows = {"users": {}, "accounts": {"a": "no"}}
    steps.made.deduplicate(left_out=LeftOut(refused=RefusedIds(rows=rows)))
    _, (suppressed, refused, lines) = steps.called["leave_out"]
    assert (suppressed, refused, list(lines([1])), bool(refused)) == (NOBODY, RefusedIds({}, rows), [], True)


def test_unreadable_messages_are_looked_for_among_all(steps: Steps) -> None:
    steps.note(unreadable, "find_unreadable", {"a": "no"})
    assert steps.made.unreadable() == {"a": "no"}
    context, canary, make = steps.called["find_unreadable"]
    assert (context, make) == (steps.made._context, write_all_rows)
    assert canary.events == {'"Email Opened"': 1}
    assert len(steps.opened) == 2
    assert steps.closed == steps.opened[1:]


def test_all_rows_of_some_messages_are_made(steps: Steps) -> None:
    written: list[tuple[str, int, str]] = []

    def write(rows: TableRows, path: str) -> None:
        written.append((rows.table, rows.row_count, path))

    steps.patch.setattr(TableRows, "write", write)
    write_all_rows(steps.made._context, "id IN ('a', 'g')", "a path")
    expected = [("identifies", 1), ("opened_", 1), ("tracks", 1), ("users", 1), ("_discards", 1)]
    assert sorted(written) == sorted((*each, "a path") for each in expected)


def test_which_tables_may_have_rows_and_their_numbers_once_a_load_is_open(steps: Steps) -> None:
    assert steps.made.tables() == [*OWN, "clicked", "opened_"]
    assert steps.made.tables(1) == [*OWN, "clicked"]
    context = open_load(steps.made._context)
    assert context.tables.names == [*OWN, "opened_", "clicked"]
    assert context.con.execute("SELECT count(*) FROM messages").fetchall() == [(len(LINES),)]


def test_messages_of_deleted_persons_have_no_rows(steps: Steps) -> None:
    hashes = HashedIds([("salt", hash_of("salt", Id("user_id", "u1")))])
    found = steps.made.deduplicate(left_out=LeftOut(hashes))
    assert (found.rejects_by_reason(), list(found.tables())) == ({"suppressed": len(LINES)}, [])


def test_what_is_stored_is_matched_discarded_again_and_dropped(steps: Steps) -> None:
    stored = lambda *_: iter(())  # noqa: E731
    for name in ("match_stored", "discard_again", "drop_stored"):
        steps.note(deduplicate, name)
    context = steps.made.deduplicate(None, stored, ["1"])._context
    assert steps.called == {
        "match_stored": (context, stored), "discard_again": (context, stored, ["1"]), "drop_stored": (context,),
    }  # fmt: skip
    assert list(steps.called) == ["match_stored", "discard_again", "drop_stored"]
