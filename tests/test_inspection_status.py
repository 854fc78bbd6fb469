"""`status` and `schema --live` report the tables of a destination as they are, and its loads."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import duckdb
import pytest

from autopilothq import archive, catalog, inspect, runner
from autopilothq.errors import DatasetNotFound, RunError
from autopilothq.inspect import Statistics, Status, TableInfo
from autopilothq.inspect import status as of_status
from autopilothq.inspect.changed_types import check_types_of_models, is_changed
from autopilothq.inspect.status import Freshness, LastRun, LoadSummary
from autopilothq.inspect.views import AppliedModels
from autopilothq.warehouses.dataset import NativeType, tables_of
from autopilothq.warehouses.pipeline_names import PIPELINE
from calling import Call
from contract.duck import held
from contract.loading import message
from inspected import FIRST, NOW, STATUS, make_tables, query
from prepared import preparing
from sending import write
from shared_loads import isolation


def load(credentials: str, file: str, destination: str = "duckdb") -> None:
    runner.configure(runtime__log_level="ERROR")
    with held(credentials) if destination == "duckdb" else nullcontext():
        runner.run(runner.pipeline(destination, credentials), archive(file))


@pytest.mark.parametrize(
    ("kind", "column", "kept", "changed"),
    [
        (
            "duckdb",
            "received_at",
            ["TIMESTAMP", "TIMESTAMP WITH TIME ZONE"],
            ["TIMESTAMP_NS", "TIMESTAMP_S", "TIMESTAMP[]", "DATE", "VARCHAR"],
        ),
        (
            "postgres",
            "rejected_at",
            ["timestamp without time zone", "timestamp with time zone"],
            ["date", "ARRAY", "text"],
        ),
        (
            "duckdb",
            "user_id",
            ["VARCHAR", "ENUM('a[]', 'b')"],
            ["UUID", "VARCHAR[]", "VARCHAR[3]", "FLOAT", "UBIGINT", "DATE", "JSON"],
        ),
        (
            "postgres",
            "user_id",
            ["character varying", "character", "text", "USER-DEFINED"],
            ["uuid", "ARRAY", "real", "jsonb", "boolean", "bigint"],
        ),
        ("snowflake", "user_id", ["VARIANT"], []),
    ],
)
def test_types_that_are_read_as_those_of_the_contract(
    kind: str, column: str, kept: list[str], changed: list[str]
) -> None:
    found = {
        name: is_changed(SimpleNamespace(kind=kind), {column: NativeType(name, "text")}, column)  # type: ignore[arg-type]
        for name in (*kept, *changed)
    }
    assert found == dict.fromkeys(kept, False) | dict.fromkeys(changed, True)
    assert not is_changed(SimpleNamespace(kind=kind), {}, column)  # type: ignore[arg-type]


# ---- destinations --------------------------------------------------------------------------------------------------


class Told(NamedTuple):
    """The report about a destination after two loads, with the times before, between and after them."""

    destination: str
    times: tuple[datetime, datetime, datetime]
    tables: dict[str, TableInfo]
    status: Status


def days(now: datetime) -> list[datetime]:
    return [now - timedelta(days=back) for back in (0, 1, 1, 13, 14)]


@pytest.fixture(scope="module", params=["duckdb", "postgres"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    name: str = request.param
    with ExitStack() as stack:
        stack.enter_context(isolation(tmp_path_factory.mktemp("told")))
        # A small limit, because thousands of columns take seconds; `faults/test_hostile.py` tries the real limits.
        limited = {"duckdb": "direct"}.get(name, name)  # the destination's name for the command's own DuckDB
        stack.enter_context(mock.patch.dict(catalog.LIMITS, {limited: catalog.Limits(150)}))
        stack.enter_context(mock.patch("autopilothq.segment.message.MAX_KEYS", 300))
        credentials = "events.duckdb"
        if name == "postgres":
            credentials = stack.enter_context(request.getfixturevalue("postgresql").database())
        yield two_loads((name, credentials))


def two_loads(place: tuple[str, str]) -> Told:
    """Makes two loads: the first has a line that is not a message, the second many odd ones from several days."""
    destination, credentials = place
    if destination == "postgres":  # days are in UTC, whatever the server's time zone
        ((database,),) = query(place, "SELECT current_database()")
        query(place, f"ALTER DATABASE \"{database}\" SET timezone TO 'Pacific/Auckland'")
    before = datetime.now(UTC)
    first = message(messageId="d1", event="Demo", properties={"plan": "a"}, receivedAt="2019-03-01T00:00:00Z")
    second = message(messageId="d2", event="Demo", properties={"seats": 3}, receivedAt="2019-03-02T00:00:00.5Z")
    load(credentials, write(["nonsense", message(messageId="m0"), first], "old.ndjson"), destination)
    between = datetime.now(UTC)
    lines = [message(messageId=f"m{n}", receivedAt=day.isoformat()) for n, day in enumerate(days(between), 1)]
    many = {f"k{n}": 1 for n in range(302)}
    odd = message(messageId="m9", receivedAt="2019-01-01T00:00:00Z", properties={"transactional": "perhaps"} | many)
    new = write([*lines, lines[0], odd, second, "[]", '{"type": "delete"}', "[1]"], "new.ndjson")
    load(credentials, new, destination)
    with inspect.reading(*place) as reader:
        tables = {
            table.name: table for table in inspect.described_tables(reader, ["demo", "email_bounced", "_rejects"])
        }
        status = inspect.read_status(reader, between)
    return Told(destination, (before, between, datetime.now(UTC)), tables, status)


def test_what_a_destination_tells(told: Told) -> None:
    tables, (before, between, after) = told.tables, told.times
    assert list(tables) == ["email_bounced", "_rejects", "demo"]
    assert tables["email_bounced"].statistics == Statistics(0, None, None)
    assert tables["email_bounced"].columns[0].null_share is None
    demo = tables["demo"]
    assert (demo.description, demo.key) == (catalog.EVENT_DESCRIPTION, ("id",))
    assert demo.statistics == Statistics(
        2, datetime(2019, 3, 1, tzinfo=UTC), datetime(2019, 3, 2, 0, 0, 0, 500_000, tzinfo=UTC)
    )
    columns = {column.name: column for column in demo.columns}
    assert columns["id"].description == "The message's id; a digest of its line if the message has none."
    text, integer = ("VARCHAR", "BIGINT") if told.destination == "duckdb" else ("character varying", "bigint")
    assert (columns["plan"].type, columns["plan"].native, columns["plan"].null_share) == ("text", text, 0.5)
    assert (columns["seats"].type, columns["seats"].native, columns["seats"].null_share) == ("bigint", integer, 0.5)
    came = [columns[name].first_came for name in ("plan", "seats")]
    assert came[0] is not None
    assert came[1] is not None
    assert before < came[0] < between < came[1] < after


def test_a_reader_cannot_write() -> None:
    make_tables(("duckdb", "events.duckdb"))
    with (
        inspect.reading("duckdb", "events.duckdb") as reader,
        pytest.raises(Exception, match="read-only mode"),
    ):
        reader.create(catalog.DELIVERIES)
    with inspect.reading("duckdb", "events.duckdb") as one, inspect.reading("duckdb", "events.duckdb") as two:
        assert list(tables_of(one)) == list(tables_of(two))


def test_nothing_there_makes_no_file() -> None:
    with pytest.raises(DatasetNotFound) as error, inspect.reading("duckdb", "other.duckdb"):
        pass
    assert str(error.value) == (
        f"There is no dataset autopilothq in {Path.cwd()}/other.duckdb. Load something first:"
        " autopilothq load archive URL"
    )
    assert list(Path().iterdir()) == []


# ---- status --------------------------------------------------------------------------------------------------------


def test_the_status_as_text() -> None:
    assert (
        inspect.status_text(STATUS)
        == """\
place      duckdb events.duckdb, dataset mail
last run   2026-05-04 10:00:00, 2 h ago: failed: the load step: disk full
last load  2026-05-03 09:00:00, 1 d 3 h ago: 2 files, 1,100 lines, 1,090 stored, 6 duplicates, 4 rejected
waiting    1, under way or cut off; the next run finishes what was cut off

table          newest received (UTC)  newest load (UTC)
tracks         2019-03-01 00:00:00    2026-05-03 09:00:00
email_replied  -                      -

events by day received (UTC)
2026-05-02      0
2026-05-03  1,000  ██████████████████████████████
2026-05-04      1  █

rejects of the last load  3 not_json, 1 truncated
discards                  none"""
    )


@pytest.mark.parametrize(
    ("rejects", "shown"),
    [({}, "4 without a new row in _rejects"), ({"not_json": 3}, "3 not_json, 1 without a new row in _rejects")],
)
def test_lines_that_were_rejected_before_are_among_the_rejects(rejects: dict[str, int], shown: str) -> None:
    """A file that cannot be read to its end is read again in each run, but its reject is stored once."""
    assert inspect.status_text(replace(STATUS, rejects=rejects)).splitlines()[-2] == (
        f"rejects of the last load  {shown}"
    )


def test_the_status_for_programs() -> None:
    assert inspect.status_dict(STATUS, timedelta(hours=27)) == {
        "place": "duckdb events.duckdb, dataset mail",
        "now": "2026-05-04T12:00:00+00:00",
        "last_run": {"at": "2026-05-04T10:00:00+00:00", "result": "failed", "error": "the load step: disk full"},
        "last_load": {
            "id": "1",
            "loaded_at": "2026-05-03T09:00:00+00:00",
            "files": 2,
            "lines": 1100,
            "stored": 1090,
            "duplicates": 6,
            "rejected": 4,
            "skipped": 0,
            "mended": 0,
        },
        "waiting": 1,
        "newest_load": "2026-05-03T09:00:00+00:00",
        "tables": {
            "tracks": {"received_at": "2019-03-01T00:00:00+00:00", "loaded_at": "2026-05-03T09:00:00+00:00"},
            "email_replied": {"received_at": None, "loaded_at": None},
        },
        "events_per_day": {"2026-05-02": 0, "2026-05-03": 1000, "2026-05-04": 1},
        "rejects": {"not_json": 3, "truncated": 1},
        "discards": {},
        "beyond_limits": {},
        "age_seconds": 97200.0,
        "fresh": True,
    }
    assert inspect.status_dict(STATUS, timedelta(hours=26))["fresh"] is False
    assert inspect.status_dict(STATUS, None)["fresh"] is None
    states = {"dataset": "views", "current": ["engagement"], "stale": [], "missing": [], "taken": []}
    views = AppliedModels("views", ("engagement",))
    assert inspect.status_dict(replace(STATUS, models=views), None)["models"] == states


def test_which_run_was_the_last() -> None:
    def step(name: str, raised: str | None = None, *loads: str) -> Any:
        info = SimpleNamespace(loads_ids=loads)
        return SimpleNamespace(step=name, step_exception=raised, exception_traces=None, step_info=info)

    def last(loaded_at: datetime | None, ended: datetime | None, *steps: Any) -> LastRun | None:
        trace: Any = SimpleNamespace(finished_at=ended, steps=steps)
        return of_status._last_run(loaded_at, trace)

    later = NOW + timedelta(microseconds=1)
    loaded, failed = LastRun(NOW, "loaded"), step("load", "disk full\nat 1")
    assert [of_status._last_run(at, None) for at in (None, NOW)] == [None, loaded]
    assert [last(NOW, None, failed), last(later, NOW, failed)] == [loaded, LastRun(later, "loaded")]
    for at in (NOW, NOW - timedelta(days=1), None):
        assert last(at, NOW, step("extract", None, "1"), failed) == LastRun(NOW, "failed", "the load step: disk full")
        assert last(at, NOW, step("extract", None, "1"), step("load")) == LastRun(NOW, "nothing new")
        assert last(at, NOW, step("extract"), SimpleNamespace(step="load", step_exception=None, step_info=None)) == (
            LastRun(NOW, "nothing new")
        )
        assert last(at, later, step("extract"), step("load", None, "1")) == (at and LastRun(at, "loaded"))


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([], "of the step"),
        (["of dlt", " the driver's\nand more"], "the driver's"),
        (["of dlt", 'failed\nTraceback (most recent call last):\n  File "a"\na.Error: one\n\nb.Error: two\n'], "two"),
        (["of dlt\nTraceback (most recent call last):\n  cut"], "of dlt"),
        (["a.Error: one\nb.Error: two"], "a.Error: one"),
    ],
)
def test_an_error_of_a_step_is_one_line(messages: list[str], text: str) -> None:
    traces = [{"message": message} for message in messages] or None
    step: Any = SimpleNamespace(step_exception="of the step\nand more", exception_traces=traces)
    assert of_status._reason(step) == text


def test_the_status_of_a_load(told: Told) -> None:
    found, now = told.status, told.times[1]
    assert found.last_run is not None
    assert found.last_load is not None
    assert (found.last_run.result, found.last_run.at, found.waiting) == ("loaded", found.last_load.loaded_at, 0)
    counts = found.last_load
    assert (counts.files, counts.lines, counts.stored, counts.duplicates, counts.rejected) == (1, 11, 7, 1, 3)
    assert found.models is None
    assert found.rejects == {"not_an_object": 2, "unknown_type": 1}
    beyond = {reason: tables["email_opened"] for reason, tables in found.beyond_limits.items()}
    assert found.discards == {"does_not_fit": 1} | beyond
    assert beyond.keys() >= {"too_many_columns", "too_many_keys"}
    [keys] = [line for line in inspect.status_text(found).splitlines() if line.startswith("  too_many_keys ")]
    assert keys.split() == ["too_many_keys", f"{beyond['too_many_keys']:,}", "email_opened"]
    newest = found.tables["email_opened"]
    assert newest == found.tables["tracks"]
    assert newest.received_at == days(now)[0]
    assert newest.loaded_at == found.newest_load
    assert newest.loaded_at is not None
    assert now < newest.loaded_at < found.last_load.loaded_at
    today = now.date()
    assert found.events_per_day == {
        today - timedelta(days=back): {0: 1, 1: 2, 13: 1}.get(back, 0) for back in reversed(range(14))
    }


def test_the_status_without_a_row() -> None:
    make_tables(("duckdb", "events.duckdb"))
    with inspect.reading("duckdb", "events.duckdb") as reader:
        found = inspect.read_status(reader, NOW)
    assert (found.newest_load, found.is_older(timedelta(days=9999)), found.is_ahead) == (None, True, False)
    assert (found.last_run, found.last_load, found.rejects, found.discards) == (None, None, {}, {})
    assert found.tables["tracks"] == Freshness(None, None)
    assert "\nlast run  none is known\n\n" in inspect.status_text(found)
    assert "events by day received (UTC): none since 2026-04-21" in inspect.status_text(found)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loads a message; returns the folder."""
    with preparing(tmp_path_factory.mktemp("loaded")) as home:
        load("autopilot.duckdb", write([message()], "a.ndjson"))
    return home


@pytest.mark.usefixtures("loaded")
def test_a_clock_that_was_wrong_once_does_not_hide_that_nothing_comes(call: Call) -> None:
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("UPDATE autopilothq.tracks SET uuid_ts = uuid_ts + INTERVAL 9 YEAR")
        con.execute("UPDATE autopilothq.email_opened SET uuid_ts = uuid_ts + INTERVAL 9 YEAR")
        con.execute("UPDATE autopilothq._dlt_loads SET inserted_at = inserted_at + INTERVAL 9 YEAR")
        con.execute("UPDATE autopilothq._audit SET mended = NULL")  # as rows of earlier versions
    told = call("status", "--max-age", "1d")
    assert (told.status, told.out.splitlines()[-1]) == (
        1, "Too old: the time of the newest load is in the future, because a clock was wrong.",
    )  # fmt: skip
    assert re.search(r"^last load  [0-9 :-]+, in the future: 1 file, ", told.out, re.MULTILINE)
    load("autopilot.duckdb", write([message(messageId="m2")], "b.ndjson"))
    with duckdb.connect("autopilot.duckdb") as con:
        ahead = "SELECT now() - INTERVAL 1 HOUR + INTERVAL (9 * n) YEAR AS uuid_ts FROM range(2) t(n)"
        con.execute(f'CREATE TABLE autopilothq."100 %s %% off" AS {ahead}')
        con.execute(
            "INSERT INTO autopilothq._rejects (id, reason, rejected_at)"
            " VALUES ('r', 'not_json', now() + INTERVAL 9 YEAR)"
        )
    assert call("status", "--max-age", "1d").status == 0
    for days, fresh in ((0, True), (2, False)):
        with inspect.reading("duckdb", "autopilot.duckdb") as reader:
            found = inspect.read_status(reader, datetime.now(UTC) + timedelta(days=days))
        assert found.is_older(timedelta(days=1)) is not fresh
        assert found.last_load is not None
        assert found.newest_load is not None
        assert found.now - found.last_load.loaded_at < timedelta(days=days, minutes=9)
        assert found.tables["tracks"].loaded_at == found.newest_load
        assert found.rejects == {}
        # Another program's table, with a placeholder in its name.
        assert FIRST < (found.tables["100 %s %% off"].loaded_at or FIRST) < found.now


def test_the_last_run_here(loaded: Path) -> None:
    """A run without news, one that was interrupted and one that failed are each reported, and nothing is changed."""

    def files() -> dict[Path, int]:
        # A load's own folder is deleted when Python collects its pipeline, at any time.
        home = loaded / "dlt" / "pipelines" / PIPELINE
        return {
            file: file.stat().st_mtime_ns for part in ("*.*", "load/**/*", "normalize/**/*") for file in home.glob(part)
        }

    def told() -> tuple[LastRun, LoadSummary, int]:
        before = files()
        with inspect.reading("duckdb", "autopilot.duckdb") as reader:
            found = inspect.read_status(reader, datetime.now(UTC))
            assert inspect.read_last_run(reader, datetime.now(UTC)) == found.last_run
        assert files() == before
        assert found.last_run is not None
        assert found.last_load is not None
        return found.last_run, found.last_load, found.waiting

    last, summary, _ = told()
    assert last == LastRun(summary.loaded_at, "loaded")
    load("autopilot.duckdb", "a.ndjson")
    last, summary, waiting = told()
    assert (last.result, summary.stored, waiting) == ("nothing new", 1, 0)
    assert last.at > summary.loaded_at

    runner.pipeline("duckdb", "autopilot.duckdb").extract(archive(write([message(messageId="m2")], "b.ndjson")))
    assert told()[2] == 1

    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("ALTER TABLE autopilothq.tracks ADD COLUMN more int")
        con.execute("UPDATE autopilothq.tracks SET more = 1")
        con.execute("ALTER TABLE autopilothq.tracks ALTER COLUMN more SET NOT NULL")
    with pytest.raises(runner.RunError):
        load("autopilot.duckdb", "b.ndjson")
    last, summary, _ = told()
    assert (last.result, summary.stored) == ("failed", 1)
    assert last.error == "the load step: Constraint Error: NOT NULL constraint failed: tracks.more"


# ---- changed types -------------------------------------------------------------------------------------------------


def dataset_with(kind: str, **tables: dict[str, str]) -> Any:
    """Returns a dataset in a kind of destination; `tables` have the types of their columns."""
    columns = {table: {name: NativeType(type_, "text") for name, type_ in of.items()} for table, of in tables.items()}
    return SimpleNamespace(kind=kind, dialect=kind, columns=lambda: columns, title="the dataset")


def test_models_need_the_types_of_the_columns_that_they_read() -> None:
    changed = {"id": "bigint", "anonymous_id": "json"}
    check_types_of_models(dataset_with("duckdb", tracks={"id": "bigint"}, mine=changed))
    for kind, column, type_ in (("duckdb", "anonymous_id", "json"), ("postgres", "id", "bigint")):
        with pytest.raises(RunError) as raised:
            check_types_of_models(dataset_with(kind, mine=changed, tracks={column: type_}))
        assert str(raised.value).startswith(
            f"Expected the column {column} of tracks in the dataset, to be text, but somebody made it {type_}.\n"
        )
        check_types_of_models(dataset_with(kind, tracks={column: type_}), ["pages"])


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
    ("column", "command"),
    [
        ("_dlt_loads.inserted_at", "status"),
        ("_audit.loaded_at", "report"),
        ("_dlt_version.inserted_at", "schema --live"),
        ("_rejects.rejected_at", "status"),
    ],
)
def test_a_time_of_the_books_that_is_text_is_named(call: Call, column: str, command: str) -> None:
    table, _, name = column.partition(".")
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute(f"ALTER TABLE autopilothq.{table} ALTER {name} TYPE VARCHAR")
    said = call(*command.split())
    assert (said.status, said.err.startswith(f"Error: Expected the column {name} of {table} in ")) == (1, True)
    assert ", to be timestamp, but somebody made it VARCHAR.\n" in said.err


@pytest.mark.usefixtures("loaded")
def test_a_time_of_the_books_stops_only_what_reads_it(call: Call) -> None:
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("ALTER TABLE autopilothq._rejects ALTER rejected_at TYPE VARCHAR")
    assert [call(*command.split()).status for command in ("schema --live", "report")] == [0, 0]
