"""Only rows that a destination refuses are rejected, and no load fails twice (docs/contract/warehouse.md#limits)."""

import json
import random
from collections.abc import Collection, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import dlt
import duckdb
import psycopg2
import pytest
from deltalake.exceptions import CommitFailedError, DeltaError
from dlt.destinations.exceptions import DatabaseTransientException
from dlt.pipeline.exceptions import PipelineStepFailed

import autopilothq
import forked
from autopilothq import runner
from autopilothq.sources import data_errors, isolate, refused
from autopilothq.sources.isolate import Cause
from autopilothq.warehouses.duckdb import InsertNew, direct
from calling import Call
from fake_autopilot import FakeAutopilot, FakeProfiles
from faults import killed
from faults.killed import Plan
from faults.loads import Table, assert_same, assert_sound, content, file, in_memory, pipeline, track

# Each part of a load -------------------------------------------------------------------------------------------------

BOOKS = ("_rejects", "_discards", "_audit")
BAD_DATA = Cause("1", "t", "bad", is_data=True)
UNSURE = Cause("1", "t", "unsure", is_data=None)


class Destination:
    """A destination that refuses each part with a bad row, with an error that names the part."""

    def __init__(self, bad: Collection[int], cause: Cause = BAD_DATA) -> None:
        self.bad, self.cause = set(bad), cause
        self.asked: list[tuple[int, int]] = []
        self.stored: set[int] = set()

    def load(self, start: int, stop: int) -> Cause | None:
        self.asked.append((start, stop))
        rows = set(range(start, stop))
        if rows & self.bad:
            return self.error(start, stop)
        self.stored |= rows
        return None

    def error(self, start: int, stop: int) -> Cause:
        return self.cause._replace(message=f"{start}:{stop}")

    def found(self) -> dict[int, Cause]:
        """Returns the bad rows, each with its own error."""
        return {row: self.error(row, row + 1) for row in self.bad}


@pytest.mark.parametrize("number", [1, 2, 3, 4, 7, 300])
@pytest.mark.parametrize("some", [0, 1, 2, 7])
def test_finds_the_bad_rows_and_stores_all_others(number: int, some: int) -> None:
    bad = random.Random(number * some).sample(range(number), min(some, number))
    destination = Destination(bad)
    assert isolate.find_refused(number, destination.load) == destination.found()
    assert destination.stored == set(range(number)) - set(bad)


def test_rows_that_load_tell_what_an_error_does_not() -> None:
    for number, bad in ((1, [0]), (3, [0, 1, 2]), (300, [7, 8])):
        # More rows are tried alone than are bad, so one of them loads, which shows that the error is about rows.
        destination = Destination(bad, UNSURE)
        assert isolate.find_refused(number, destination.load) == destination.found()
    unsure = Destination(range(100), UNSURE)
    assert isolate.find_refused(100, unsure.load) is None
    assert [stop - start for start, stop in unsure.asked] == [100, *[1] * isolate.SAMPLE]


def test_a_bad_row_among_many_costs_few_loads() -> None:
    destination = Destination([123_456])
    isolate.find_refused(1_000_000, destination.load)
    assert len(destination.asked) == 29  # if the first half loads, the second must be bad


class DriverError(Exception):
    """An error as drivers raise it, with attributes that tell its kind."""

    def __init__(self, text: str = "", **more: Any) -> None:
        super().__init__(text)
        self.__dict__.update(more)


@pytest.mark.parametrize(
    ("error", "about"),
    [
        (DriverError(pgcode="22P02"), True),
        (DriverError(pgcode="23514"), True),
        (DriverError('no partition of relation "tracks" found for row', pgcode="23514"), None),
        (DriverError(sqlstate="54000"), True),
        (DriverError(pgcode="23502"), None),
        (DriverError(pgcode="P0001"), None),
        (DriverError(pgcode="54011"), False),
        (DriverError(pgcode="08006"), False),
        (DriverError(pgcode="42501"), False),
        (DriverError(pgcode="42P01"), False),
        (DriverError(pgcode="42703"), False),
        (DriverError(pgcode="53100"), False),
        (DriverError(sqlstate="55P03"), False),
        (DriverError(pgcode="57P01"), False),
        (duckdb.ConversionException("x"), True),
        (duckdb.ConstraintException("CHECK constraint failed"), True),
        (duckdb.ConstraintException("NOT NULL constraint failed"), None),
        (duckdb.IOException("x"), False),
        (duckdb.InvalidInputException("x"), None),
        (OSError(28, "No space left on device"), False),
        (DriverError(pgcode="0A000"), False),
        (psycopg2.OperationalError("too many connections"), False),
        (CommitFailedError("The transaction includes Remove action"), False),
        (DeltaError("1 rows failed validation check"), None),
        (DriverError(), None),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, '__dict__', None) or value}",
)
def test_tells_whether_an_error_is_about_the_rows(error: Exception, about: bool | None) -> None:
    assert data_errors.is_data([error]) is about


def test_what_the_driver_says_counts_more_than_how_dlt_classes_it() -> None:
    assert data_errors.is_data([DatabaseTransientException(DriverError()), DriverError(pgcode="22001")]) is True
    assert data_errors.is_data([DatabaseTransientException(DriverError()), DriverError()]) is False


# A source that is extracted again ------------------------------------------------------------------------------------


@dlt.source(name="other")
def failing() -> Iterator[Any]:
    """A source that raises after its first row."""

    def rows() -> Iterator[Any]:
        yield {"row": 1}
        raise ValueError("another source fails")

    yield dlt.resource(rows, name="rows")


def test_a_source_hands_over_all_again_after_a_failure_and_to_another_pipeline(tmp_path: Path) -> None:
    lines: list[Any] = [track(1), track(2, type="identify", messageId="i"), b"no JSON"]
    file(tmp_path / "archive", "1.gz", lines)
    reports: list[autopilothq.LoadReport] = []
    source = autopilothq.archive(str(tmp_path / "archive"), progress=reports.append)
    source = source.with_resources("tracks", "identifies", "users", "_rejects", "_audit")  # the tables that get rows
    databases = in_memory(), in_memory()
    first, second = (pipeline(tmp_path / name, of) for name, of in zip(("first", "second"), databases, strict=True))
    with pytest.raises(PipelineStepFailed, match="another source fails"):
        first.run([source, failing()])
    for into in (first, second):
        while into.has_pending_data:
            into.abort_packages()
        into.run(source)
        assert (reports[-1].lines, reports[-1].stored, reports[-1].rejected) == (3, 2, 1)
    first.run(source)
    assert (reports[-1].lines, reports[-1].files, reports[-1].files_known) == (0, 0, 1)
    tables = content(databases[0])
    assert (len(tables["tracks"].rows), len(tables["users"].rows), len(tables["_audit"].rows)) == (1, 1, 1)
    assert_same(content(databases[1]), tables)


def test_an_account_and_a_space_are_read_again_too(tmp_path: Path) -> None:
    reports: list[autopilothq.LoadReport] = []
    with FakeAutopilot(contacts=3) as account, FakeProfiles() as space:
        (tmp_path / "people").write_text("email:a@example.com\n")
        common: dict[str, Any] = {"requests_per_second": 1_000, "progress": reports.append}
        sources = [
            autopilothq.api(account.key, base_url=account.base_url, **common).with_resources("contacts", *BOOKS),
            autopilothq.profiles(
                space.token, space.space, base_url=space.base_url, people=str(tmp_path / "people"), **common
            ),
        ]
        databases = [in_memory() for _ in sources]
        for number, source in enumerate(sources):
            into = pipeline(tmp_path / f"{number}", databases[number])
            with pytest.raises(PipelineStepFailed, match="another source fails"):
                into.run([source, failing()])
            while into.has_pending_data:
                into.abort_packages()
            into.run(source)
    assert len(content(databases[0])["contacts"].rows) == 3
    assert reports[-1].people == 1


# Whole loads ---------------------------------------------------------------------------------------------------------


def identify(number: int, user: str, **traits: Any) -> dict[str, Any]:
    message = track(number, type="identify", messageId=f"i-{number}", userId=user, traits=traits)
    return {name: value for name, value in message.items() if name not in ("event", "properties")}


def group(number: int, id_: str, **traits: Any) -> dict[str, Any]:
    return identify(number, "u", **traits) | {"type": "group", "messageId": f"g-{number}", "groupId": id_}


def load(call: Call, archive: Path, *destination: str) -> dict[str, Any]:
    """Loads with success; returns the report."""
    said = call("load", "archive", str(archive), "--json", *destination)
    assert said.status == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def rejects(tables: dict[str, Table]) -> dict[str, tuple[Any, ...]]:
    """Returns file, line and message of the rejects of refused messages, by the message's id."""
    rows = [row for row in tables["_rejects"].dicts() if row["reason"] == "unreadable"]
    return {json.loads(row["raw"])["messageId"]: (row["file"], row["line"], row["message"]) for row in rows}


# Triggers refuse rows of email_opened and of users, the second with an error that does not say that it is about rows;
# both also leave out rows without an error. Constraints refuse rows of tracks, identifies, groups, accounts and the
# books.
REFUSALS = """
    CREATE FUNCTION refuse_user() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.plan = 'evil' THEN RAISE EXCEPTION 'no evil users'; END IF;
        IF NEW.plan = 'gone' THEN RETURN NULL; END IF; RETURN NEW; END $$;
    CREATE FUNCTION refuse_event() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.campaign_id IN ('c-7', 'c-8') THEN
            RAISE 'no campaign %', NEW.campaign_id USING ERRCODE = 'check_violation';
        END IF;
        IF NEW.campaign_id = 'c-9' THEN RETURN NULL; END IF; RETURN NEW; END $$;
    CREATE TRIGGER t BEFORE INSERT ON autopilothq.users FOR EACH ROW EXECUTE FUNCTION refuse_user();
    CREATE TRIGGER t BEFORE INSERT ON autopilothq.email_opened FOR EACH ROW EXECUTE FUNCTION refuse_event();
    ALTER TABLE autopilothq.tracks ADD CONSTRAINT sane CHECK (id <> 'm-20');
    ALTER TABLE autopilothq.identifies ADD CONSTRAINT sane CHECK (plan <> 'bad');
    ALTER TABLE autopilothq.groups ADD CONSTRAINT sane CHECK (plan <> 'bad');
    ALTER TABLE autopilothq.accounts ADD CONSTRAINT sane CHECK (plan <> 'evil');
    ALTER TABLE autopilothq._rejects ADD CONSTRAINT sane CHECK (raw NOT LIKE '%poison%');
    ALTER TABLE autopilothq._discards ADD CONSTRAINT sane CHECK (value NOT LIKE '%poison%');
"""
CONSTRAINT = 'new row for relation "{}" violates check constraint "sane"'
LEFT_OUT = "a trigger or a rule of the table leaves out the row"
REFUSED = {
    "m-7": "its row of email_opened is refused by the destination: no campaign c-7",
    "m-8": "its row of email_opened is refused by the destination: no campaign c-8",
    "m-9": f"its row of email_opened is refused by the destination: {LEFT_OUT}",
    "m-20": f"its row of tracks is refused by the destination: {CONSTRAINT.format('tracks')}",
    "i-42": f"its row of identifies is refused by the destination: {CONSTRAINT.format('identifies')}",
    "i-43": "its row of users is refused by the destination: no evil users",
    "i-44": "its row of users is refused by the destination: no evil users",
    "i-49": f"its row of users is refused by the destination: {LEFT_OUT}",
    "g-46": f"its row of groups is refused by the destination: {CONSTRAINT.format('groups')}",
    "g-47": f"its row of accounts is refused by the destination: {CONSTRAINT.format('accounts')}",
    "g-48": f"its row of accounts is refused by the destination: {CONSTRAINT.format('accounts')}",
}


def test_a_warehouse_refuses_rows_of_all_tables(
    tmp_path: Path, postgres: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOAD__RAISE_ON_MAX_RETRIES", "1")  # dlt would try the rows of a raising trigger five times
    first: list[Any] = [
        track(0),
        identify(1, "a", plan="old"),
        identify(2, "d", plan="old"),
        b"[]",
        group(2, "a", plan="old"),
    ]
    first += [track(3, messageId="fits not", properties={"transactional": "maybe"})]
    lines: list[Any] = [track(number) for number in (5, 7, 8, 9, 20, 21)]
    lines += [identify(40, "a", plan="good"), identify(41, "b", plan="good")]
    lines += [identify(42, "a", plan="bad"), identify(43, "c", plan="fair"), identify(44, "c", plan="evil")]
    lines += [identify(49, "e", plan="gone")]
    lines += [group(45, "a", seats=2), group(46, "a", plan="bad")]
    lines += [group(47, "b", plan="fair"), group(48, "b", plan="evil")]
    lines += [b"poison", track(50, messageId="fits not either", properties={"transactional": "poison"})]
    archive, good = tmp_path / "archive", tmp_path / "good"
    into = ["--destination", "postgres", "--credentials", postgres]
    load(call, file(archive, "1.gz", first).parent, *into)
    with closing(psycopg2.connect(postgres)) as server, server, server.cursor() as cursor:
        cursor.execute(REFUSALS)
    path = file(archive, "2.gz", lines)
    result = load(call, archive, *into)
    assert (result["lines"], result["stored"], result["duplicates"]) == (18, 6, 0)
    assert result["rejects"] == {"unreadable": 11, "not_json": 1}

    tables = content(postgres)
    numbers = {json.loads(line)["messageId"]: n for n, line in enumerate(map(json.dumps, lines[:16]), 1)}
    assert rejects(tables) == {id_: (str(path), numbers[id_], why) for id_, why in REFUSED.items()}
    del tables["_locks"]
    assert_sound(tables)
    # Everything else is as if the bad lines had never existed.
    file(good, "1.gz", first)
    file(good, "2.gz", [line for line in lines if isinstance(line, bytes) or line["messageId"] not in REFUSED])
    database = in_memory()
    runner.run(pipeline(tmp_path, database), autopilothq.archive(str(good)))
    expected = content(database)
    assert_same(tables, expected, but=["_audit", "_rejects", "_discards"])
    # Rows of the books lose only the text that is refused.
    [poisoned] = [row for row in tables["_rejects"].dicts() if row["reason"] == "not_json"]
    why = f"its row of _rejects is refused by the destination: {CONSTRAINT.format('_rejects')}"
    assert (poisoned["raw"], poisoned["message"]) == ("", why)
    assert {(row["row_id"], row["value"]) for row in tables["_discards"].dicts()} == {
        ("fits not", '"maybe"'),
        ("fits not either", ""),
    }
    # The next load has nothing to do.
    again = load(call, archive, *into)
    assert (again["lines"], again["files"], again["files_known"]) == (0, 0, 2)
    assert_same({name: table for name, table in content(postgres).items() if name != "_locks"}, tables)


def constrain(database: Path, table: str, condition: str) -> None:
    """Adds a constraint to a table of a DuckDB file by copying the table, the only way to add one later."""
    with duckdb.connect(str(database)) as con:
        con.execute("USE autopilothq")
        tables = f"duckdb_tables() WHERE schema_name = 'autopilothq' AND table_name = '{table}'"
        [(made,)] = con.execute(f"SELECT sql FROM {tables}").fetchall()
        con.execute(f"ALTER TABLE {table} RENAME TO before")
        con.execute(made.replace(");", f", CHECK ({condition}));"))
        con.execute(f"INSERT INTO {table} FROM before; DROP TABLE before")


def test_what_is_found_lasts_through_a_kill(tmp_path: Path) -> None:
    archive, folder, good = tmp_path / "archive", tmp_path / "killed", tmp_path / "good"
    database = folder / "autopilot.duckdb"
    file(archive, "1.gz", [track(0), identify(1, "a")])
    runner.run(pipeline(folder), autopilothq.archive(str(archive)))
    constrain(database, "email_opened", "id <> 'm-30'")
    constrain(database, "users", "id <> 'b'")
    lines = [track(number) for number in range(2, 80)] + [identify(80, "b"), identify(81, "c")]
    file(archive, "2.gz", lines)

    killed_at(tmp_path, Plan(str(archive), str(folder), (refused.KILL_POINT_REFUSALS_WRITTEN, "after", 1), run=True))
    into = pipeline(folder)
    noted = Path(into.working_dir, refused.FILE)
    # Pretends that a row of the books was refused even without its text.
    noted.write_text(json.dumps(json.loads(noted.read_text()) | {"left_out": {"_discards": {"d": "its row is bad"}}}))
    reports: list[autopilothq.LoadReport] = []
    runner.run(into, autopilothq.archive(str(archive), progress=reports.append))
    report = reports[-1]
    assert report.warnings == ["Rows left out of _discards: 1; its row is bad"]
    assert (report.lines, report.stored, report.duplicates, report.rejects) == (80, 78, 0, {"unreadable": 2})

    tables = content(database)
    bad = {id_: line for id_, (_, line, _) in rejects(tables).items()}
    assert bad == {"m-30": 29, "i-80": 79}
    assert_sound(tables)
    file(good, "1.gz", [track(0), identify(1, "a")])
    file(good, "2.gz", [line for line in lines if line["messageId"] not in bad])
    undisturbed = in_memory()
    runner.run(pipeline(tmp_path, undisturbed), autopilothq.archive(str(good)))
    assert_same(tables, content(undisturbed), but=["_audit", "_rejects"])
    assert not Path(into.working_dir, refused.FILE).exists()
    # Another run adds nothing, also if the file of refused rows is damaged.
    Path(into.working_dir, refused.FILE).parent.mkdir()
    Path(into.working_dir, refused.FILE).write_text("{")
    runner.run(into, autopilothq.archive(str(archive), progress=reports.append))
    assert (reports[-1].lines, reports[-1].files_known) == (0, 2)
    assert_same(content(database), tables)


def test_the_file_of_an_earlier_version_is_read_and_written(tmp_path: Path) -> None:
    """Either version continues a load that the other could not finish."""
    into = pipeline(tmp_path)
    stored: dict[str, Any] = {
        "place": refused.target_of(into),
        "attempts": ["2026-01-02T03:04:05+00:00"],
        "messages": {"m-1": "bad"},
        "users": {"u": "bad"},
        "accounts": {},
        "emptied": {"_rejects": {"r": "bad"}},
        "left_out": {"contacts": {"c": "bad"}},
        "load_id": "1",
    }
    path = Path(into.working_dir, refused.FILE)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(stored))
    found = refused.RefusedMessages.read(into)
    assert len(found) == 4
    found.write(into)
    assert json.loads(path.read_text()) == stored


def killed_at(folder: Path, plan: Plan) -> None:
    """Runs a load in its own process, which ends by `kill -9`."""
    (folder / "plans.json").write_text(json.dumps([plan]))
    done = forked.run(killed.__file__, str(folder / "plans.json"), env={"RUNTIME__DLTHUB_TELEMETRY": "false"})
    assert done.stdout == "0 -9\n", done.stderr


def test_an_error_that_is_not_about_rows_rejects_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file(tmp_path / "archive", "1.gz", [track(number) for number in range(10)])
    database = in_memory()
    into = pipeline(tmp_path, database)
    merge = InsertNew.run
    source = autopilothq.archive(str(tmp_path / "archive")).with_resources(
        "tracks", "email_opened", "_rejects", "_audit"
    )

    def fail(job: InsertNew) -> None:
        if job.load_table_name == "tracks":
            raise OSError(28, "No space left on device")
        merge(job)

    with monkeypatch.context() as patch:
        patch.setenv("LOAD__RAISE_ON_MAX_RETRIES", "1")
        patch.setattr(InsertNew, "run", fail)
        with pytest.raises(runner.RunError, match="No space left on device"):
            runner.run(into, source)
    assert not Path(into.working_dir, refused.FILE).exists()
    runner.run(into, source)
    tables = content(database)
    assert_sound(tables)
    assert (len(tables["tracks"].rows), len(tables["_rejects"].rows)) == (10, 0)


def test_a_pipelines_first_load_may_be_refused_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file(tmp_path / "archive", "1.gz", [track(1)])
    database = in_memory()
    merge, left = InsertNew.run, [duckdb.ConversionException("no"), duckdb.ConversionException("no")]

    def fail_twice(job: InsertNew) -> None:
        if job.load_table_name == "tracks" and left:
            raise left.pop()
        merge(job)

    def refuse(into: dlt.Pipeline, *_: object) -> bool:
        into.abort_packages()
        return True

    monkeypatch.setenv("LOAD__RAISE_ON_MAX_RETRIES", "1")
    monkeypatch.setattr(InsertNew, "run", fail_twice)
    monkeypatch.setattr(isolate, "refuse_rows", refuse)
    runner.run(pipeline(tmp_path, database), autopilothq.archive(str(tmp_path / "archive")))
    tables = content(database)
    assert_sound(tables)
    assert [row["id"] for row in tables["tracks"].dicts()] == ["m-1"]


def test_a_merge_into_duckdb_that_fails_replaces_no_row() -> None:
    """Rows are deleted and inserted in one transaction, which dlt alone does not declare for DuckDB."""
    into = dlt.pipeline("own", destination=direct("own.duckdb"), dataset_name="data")
    made = "CREATE TABLE data.mine (id BIGINT, n BIGINT CHECK (n < 10), _dlt_load_id VARCHAR, _dlt_id VARCHAR)"
    with into.sql_client() as client:
        client.execute_sql(f"CREATE SCHEMA data; {made}")
    for n, outcome in ((1, nullcontext()), (50, pytest.raises(PipelineStepFailed))):
        rows = dlt.resource([{"id": 1, "n": n}], name="mine", primary_key="id", write_disposition="merge")
        with outcome:
            into.run(rows)
    with into.sql_client() as client:
        assert client.execute_sql("SELECT id, n FROM data.mine") == [(1, 1)]
