"""Rows that the destination refuses are found and noted, without a real load."""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dlt
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from dlt.common.configuration import inject_section
from dlt.common.configuration.resolve import resolve_configuration
from dlt.common.configuration.specs.config_section_context import ConfigSectionContext
from dlt.common.destination.exceptions import DestinationTransientException
from dlt.common.storages import LoadStorageConfiguration
from dlt.load.configuration import LoaderConfiguration
from dlt.load.exceptions import LoadClientJobFailed
from dlt.pipeline.exceptions import PipelineStepFailed

from autopilothq.catalog import LATEST, TABLES
from autopilothq.errors import RunError, causes
from autopilothq.projection import TableRows
from autopilothq.sources import data_errors, isolate, refused, unfit
from autopilothq.sources.file_rows import FileRows
from autopilothq.sources.refused import RefusedMessages
from autopilothq.warehouses.dlt_internals import NULL_COLLECTOR
from refusals import NOON, files_of, pipeline_at, relation_of


def test_rows_of_several_files_are_numbered_together(tmp_path: Path) -> None:
    rows = files_of(tmp_path, {"n": [0, 1, 2, 3, 4]}, {"n": [5]}, {"n": [6, 7, 8]}, group=3)
    assert rows.row_count == 9
    for start in range(10):
        for stop in range(start, 11):
            parts = [part["n"].to_pylist() for part in rows.between(start, stop)]
            assert [n for part in parts for n in part] == list(range(start, min(stop, 9)))
            assert all(0 < len(part) <= 3 for part in parts)
    assert [rows.at(number) for number in (0, 4, 8)] == [{"n": 0}, {"n": 4}, {"n": 8}]


@pytest.mark.parametrize(
    ("message", "lack"),
    [
        ("Constraint Error: NOT NULL constraint failed: tracks.plan", True),
        ("NOT NULL constraint failed: a.b.plan", True),
        ("NOT NULL constraint failed: tracks.n", False),
        ('null value in column "plan" of relation "tracks" violates not-null constraint', True),
        ('null value in column "n" of relation', False),
        ("CHECK constraint failed: tracks.plan", False),
    ],
)
def test_a_column_that_no_row_has_is_not_the_rows_fault(tmp_path: Path, message: str, lack: bool) -> None:
    assert files_of(tmp_path, {"n": [1]}, {"n": [2], "m": [3]}).lack(message) is lack
    assert files_of(tmp_path, {"n": [1]}, {"plan": [2]}).lack("NOT NULL constraint failed: tracks.plan") is False


UNASKED: Any = None  # a pipeline that is not used, because there are no stored keys to look up


class StepFailed(Exception):
    """An error like dlt's, with its cause."""


def chained(*errors: BaseException) -> BaseException:
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def test_why_a_load_failed_is_what_the_driver_says() -> None:
    driver = duckdb.ConversionException("Conversion Error: bad value\nLINE 1: …")
    job = LoadClientJobFailed("load 1", "tracks.ab12.0.parquet", "failed", driver)
    found: Any = isolate._cause(UNASKED, chained(StepFailed(), RuntimeError(), job))  # type: ignore[arg-type]
    assert found == isolate.Cause("load 1", "tracks", "Conversion Error: bad value", True)
    assert isolate._cause(UNASKED, chained(StepFailed(), RuntimeError())) is None  # type: ignore[arg-type]
    silent = LoadClientJobFailed("load 1", "tracks.ab12.0.parquet", "failed", DestinationTransientException())
    found = isolate._cause(UNASKED, chained(StepFailed(), silent))  # type: ignore[arg-type]
    assert found == isolate.Cause("load 1", "tracks", "DestinationTransientException", False)
    long = LoadClientJobFailed("load 1", "users.x", "failed", RuntimeError("\n " + "y" * 600))
    found = isolate._cause(UNASKED, long)  # type: ignore[arg-type]
    assert found == isolate.Cause("load 1", "users", "y" * 500, None)
    wrapped: Any = chained(RuntimeError("of dlt's"), driver)
    found = isolate._cause(UNASKED, LoadClientJobFailed("load 1", "users.x", "failed", wrapped))  # type: ignore[arg-type]
    assert found == isolate.Cause("load 1", "users", "of dlt's", True)
    arrow = RuntimeError("INVALID_STATE: [libpq] Failed to end COPY: ERROR:  no evil users\nCONTEXT: …")
    found = isolate._cause(UNASKED, LoadClientJobFailed("load 1", "users.x", "failed", arrow))  # type: ignore[arg-type]
    assert found == isolate.Cause("load 1", "users", "no evil users", None)
    nameless: Any = LoadClientJobFailed("load 1", "users.x", "why", None)  # type: ignore[arg-type]
    assert isolate._cause(UNASKED, nameless) == isolate.Cause("load 1", "users", "why", None)


def dlts_retries() -> int:
    """Returns how often dlt would try a job of a load of the pipeline `p`."""
    with inject_section(ConfigSectionContext(pipeline_name="p", sections=("load",))):
        kept = LoadStorageConfiguration(load_volume_path="load")
        return resolve_configuration(LoaderConfiguration(_load_storage_config=kept)).raise_on_max_retries


@pytest.mark.parametrize(
    ("variable", "value", "before"),
    [
        ("LOAD__RAISE_ON_FAILED_JOBS", "true", 5),  # dlt's default
        ("LOAD__RAISE_ON_MAX_RETRIES", "3", 3),
        ("LOAD__RAISE_ON_MAX_RETRIES", "0", 0),  # retries forever
        ("P__LOAD__RAISE_ON_MAX_RETRIES", "7", 7),
    ],
)
def test_dlt_tries_a_part_once_and_says_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, before: int
) -> None:
    """Whatever the user's settings are; they apply again afterwards."""
    into: Any = SimpleNamespace(collector="the user's")
    log = logging.getLogger("dlt")
    monkeypatch.setenv(variable, value)
    assert dlts_retries() == before  # dlt sets its log level on this first read
    monkeypatch.setattr(log, "level", logging.ERROR)
    for _ in range(2):
        with suppress(KeyError), isolate._quietly(into):
            assert (dlts_retries(), log.level, into.collector) == (1, logging.CRITICAL, NULL_COLLECTOR)
            raise KeyError
        assert (dlts_retries(), log.level, into.collector) == (before, logging.ERROR, "the user's")


def test_the_rows_of_a_table_that_is_replaced_are_merged_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolate, "merge_strategies", lambda _, table_format: [table_format])
    monkeypatch.setattr(isolate, "merge_disposition", lambda table, strategies: (table, strategies))
    parts = {"disposition": "merge", "strategy": "delete-insert"}
    assert [isolate._disposition(UNASKED, table, "upsert") for table in ("lists", "contacts", "an_event")] == [
        parts,
        ("contacts", ["upsert"]),
        ("an_event", ["upsert"]),
    ]


@pytest.mark.parametrize("zone", ["UTC", None])
def test_a_part_of_a_table_has_the_hints_of_its_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str | None
) -> None:
    into = dlt.pipeline("d", pipelines_dir=str(tmp_path), destination="duckdb", dataset_name="set")
    times_ = pa.array([NOON] * 4, pa.timestamp("us", zone))
    rows = files_of(tmp_path, {"id": ["a", "b", "c", "d"], "received_at": times_, "number": [1, 2, 3, 4]})
    time = {"data_type": "timestamp", "nullable": True} | ({} if zone else {"timezone": False})
    for table, strategy in (("tracks", "insert-only"), ("an_event", "insert-only"), ("users", "delete-insert")):
        made = isolate._resource(into, isolate._Part(table, rows, 1, 4), None)
        assert [part["id"].to_pylist() for part in made] == [["b"], ["c", "d"]]
        schema: Any = made.compute_table_schema()
        columns = [
            column | {"description": bool(column.pop("description", ""))} for column in schema["columns"].values()
        ]
        assert columns == [
            {"name": "id", "data_type": "text", "nullable": True, "primary_key": True, "description": True},
            {"name": "received_at", "description": True, **time},
            {"name": "number", "data_type": "bigint", "nullable": True, "description": False},
        ]
        assert {name: of for name, of in schema.items() if name != "columns"} == {
            "name": table,
            "resource": table,
            "write_disposition": "merge",
            "x-merge-strategy": strategy,
            "file_format": "parquet",
            "x-segment-table": True,
        }
    monkeypatch.setattr(isolate, "merge_strategies", lambda _, table_format: {"delta": ["upsert"]}[table_format])
    lake: Any = isolate._resource(into, isolate._Part("users", rows, 0, 1), "delta").compute_table_schema()
    assert (lake["table_format"], lake["x-merge-strategy"]) == ("delta", "upsert")


class NotLoaded(PipelineStepFailed):
    """dlt's error for a load, with its cause."""

    def __init__(self, cause: BaseException) -> None:
        Exception.__init__(self)
        self.__cause__ = cause


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (None, None),
        (duckdb.ConstraintException("no"), isolate.Cause("load 1", "tracks", "no", True)),
        (RuntimeError("why?"), isolate.Cause("load 1", "tracks", "why?", None)),
        (OSError("disk full"), NotLoaded),
        ("no job", NotLoaded),
    ],
)
def test_a_part_that_fails_is_given_up_and_what_no_row_causes_is_raised(
    monkeypatch: pytest.MonkeyPatch, error: Any, cause: Any
) -> None:
    done: list[Any] = []

    def run(source: Any) -> None:
        done.append((source.name, source.schema.name, list(source.resources), into.collector))
        if error == "no job":
            raise NotLoaded(RuntimeError())
        if error:
            raise NotLoaded(LoadClientJobFailed("load 1", "tracks.x", "failed", error))

    into: Any = SimpleNamespace(collector="the user's", run=run, abort_packages=lambda: done.append("given up"))
    monkeypatch.setattr(isolate, "_resource", lambda *of: dlt.resource([of], name=of[1].table))
    parts = [isolate._Part(table, FileRows([]), 0, 1) for table in ("tracks", "users")]
    if cause is NotLoaded:
        with pytest.raises(NotLoaded):
            isolate._load(into, None, parts)
    else:
        assert isolate._load(into, None, parts) == cause
    loaded = ("autopilothq", "autopilothq", ["tracks", "users"], NULL_COLLECTOR)
    assert done == ([loaded, "given up"] if error else [loaded])


def test_what_the_next_load_leaves_out_because_of_rows(tmp_path: Path) -> None:
    rows = files_of(tmp_path, {"id": ["a", "b"], "list_id": ["l", "m"], "contact_id": ["x", "y"]})
    found = RefusedMessages("place")
    for table in ("users", "accounts", "tracks", "an_event", "_rejects", "lists_contacts"):
        isolate._note(found, table, rows, {1: isolate.Cause("1", table, "why", True)})
    errors = {table: f"its row of {table} is refused by the destination: why" for table in (*TABLES, "an_event")}
    assert found == RefusedMessages(
        "place",
        messages={"b": errors["an_event"]},
        users={"b": errors["users"]},
        accounts={"b": errors["accounts"]},
        emptied={"_rejects": {"b": errors["_rejects"]}},
        left_out={"lists_contacts": {"m\ny": errors["lists_contacts"]}},
    )
    isolate._note(found, "_rejects", rows, {1: isolate.Cause("1", "_rejects", "why", True)})
    assert found.left_out["_rejects"] == {"b": errors["_rejects"]}


class Deletions:
    """A dataset with some tables, which records what is deleted."""

    def __init__(self, *tables: str) -> None:
        self.there = tables
        self.deleted: list[tuple[str, str, list[Any]]] = []

    def tables(self, names: list[str]) -> dict[str, Any]:
        return {name: {} for name in names if name in self.there}

    def quoted(self, table: str, column: str) -> str:
        return f"{table}.{column}"

    def delete(self, table: str, where: str, values: list[Any]) -> None:
        self.deleted.append((table, where, values))


def test_what_failed_loads_stored_of_refused_messages_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolate, "IDS_PER_DELETE", 2)
    [identifies] = files_of(tmp_path, {"id": ["i1", "i2", "i3", "i4"], "user_id": ["u1", "u2", None, "u1"]}).files
    files = {"identifies": [identifies], "tracks": [], "an_event": [], "_audit": [], "users": []}
    dataset = Deletions("identifies", "tracks", "users", "_audit", "accounts")
    monkeypatch.setattr(isolate, "handed_over", {"mine": files}.get)
    monkeypatch.setattr(isolate, "open_dataset", {"mine": dataset}.get)
    into: Any = "mine"
    attempts = [NOON.isoformat(), (NOON + timedelta(hours=1)).isoformat()]
    found = RefusedMessages("place", attempts, messages={"i2": "", "i3": "", "t1": ""}, users={"u1": ""})
    isolate._take_back(into, found)
    since = NOON - timedelta(milliseconds=1)
    some = ["i2", "i3"], ["t1", "i1"], ["i4"]
    assert dataset.deleted == [
        *(
            (table, f"{table}.id IN ({', '.join(['%s'] * len(ids))}) AND {table}.uuid_ts >= %s", [*ids, since])
            for table in ("identifies", "tracks")
            for ids in some
        ),
        ("users", "users.id IN (%s) AND users.uuid_ts >= %s", ["u2", since]),
    ]


def failed(table: str, error: BaseException) -> NotLoaded:
    return NotLoaded(LoadClientJobFailed("load 1", f"{table}.x", "failed", error))


class Search:
    """A pipeline with extracted rows, some of which its destination refuses; records what is done."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, bad: dict[str, str], also_failed: list[str]
    ) -> None:
        self.bad, self.done, self.warnings = bad, list[Any](), list[str]()
        self.dataset = Deletions("tracks", "users")
        waiting = folder / "autopilothq" / "1-x" / "waiting"
        waiting.mkdir(parents=True)
        (waiting / "begun").write_text(NOON.isoformat())
        for number, table in enumerate(("tracks", "users", "an_event")):
            ids = [f"{table} {row}" for row in range(4)]
            pq.write_table(pa.table({"id": ids, "number": [*range(4)]}), waiting / f"rows-{number}-{table}")
        self.into = pipeline_at(folder)
        jobs = {
            "failed_jobs": [SimpleNamespace(job_file_info=SimpleNamespace(table_name=name)) for name in also_failed]
        }
        self.into.get_load_package_info = {"load 1": SimpleNamespace(jobs=jobs), "part": SimpleNamespace(jobs={})}.get
        self.into.abort_packages = lambda: self.done.append("given up")
        self.into.destination_client = lambda: None
        monkeypatch.setattr(isolate, "open_dataset", lambda _: self.dataset)
        monkeypatch.setattr(isolate, "_load", self.load)

    def load(self, into: Any, table_format: str, parts: list[Any]) -> isolate.Cause | None:
        assert (into, table_format) == (self.into, "delta")
        self.done.append([(part.table, part.start, part.stop) for part in parts])
        for part in parts:
            for rows in part.rows.between(part.start, part.stop):
                for id_ in rows["id"].to_pylist():
                    if id_ in self.bad or part.table in self.bad:
                        return isolate.Cause("part", self.bad.get(part.table, part.table), self.bad.get(id_, "?"), None)
        return None

    def found(self, error: NotLoaded) -> bool:
        source: Any = SimpleNamespace(resources={"any": SimpleNamespace(table_format="delta")})
        return isolate.refuse_rows(self.into, source, error, self.warnings.append)


SEARCHED = "The destination refuses rows of {}: they are looked for among 4, and all others are loaded."


def test_refused_rows_of_all_tables_are_found_and_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(tmp_path, monkeypatch, {"tracks 2": "bad number", "an_event 0": "no event"}, ["users", "tracks"])
    assert search.found(failed("tracks", duckdb.ConstraintException("no 2")))
    assert search.warnings == [
        f"{SEARCHED.format('tracks')} no 2",
        SEARCHED.format("users"),
        f"{SEARCHED.format('an_event')} no event",
    ]
    parts = [("tracks", 0, 2), ("tracks", 2, 3), ("tracks", 3, 4), ("users", 0, 4), ("an_event", 0, 4)]
    assert search.done[:6] == ["given up", *([part] for part in parts)]
    assert [] not in search.done  # no loads without rows, which would also take time
    assert RefusedMessages.read(search.into) == RefusedMessages(
        "duckdb d, dataset set",
        [NOON.isoformat()],
        {
            "tracks 2": "its row of tracks is refused by the destination: bad number",
            "an_event 0": "its row of an_event is refused by the destination: no event",
        },
    )
    assert [(table, values[:-1]) for table, _, values in search.dataset.deleted] == [
        ("tracks", ["tracks 2", "an_event 0"])
    ]


def in_latin1(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(_: object, units: list[str]) -> tuple[str, set[str]]:
        return "LATIN1", {unit for unit in units if ord(unit) > 255}

    monkeypatch.setattr(unfit, "lacking_characters", lacking)


LACKS = "Zeichen mit Bytefolge 0xe2 in Kodierung »UTF8« hat keine Entsprechung in Kodierung »LATIN1«"


class Untranslatable(Exception):
    """PostgreSQL's error for a character that its encoding lacks, in the server's language."""

    sqlstate = "22P05"


def test_rows_that_an_encoding_cannot_hold_are_found_without_a_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a row with an id that cannot be written in a statement."""
    in_latin1(monkeypatch)
    search = Search(tmp_path, monkeypatch, {}, [])
    waiting = tmp_path / "autopilothq" / "1-x" / "waiting"
    cells = {"id": ["a", "é", "→", "d"], "number": [1, 2, 3, 4], "name": ["ü", "é", "x", "☎"]}
    for number, table in ((0, "tracks"), (1, "users"), (3, "identifies")):
        pq.write_table(pa.table(cells | {"user_id": ["u"] * 4}), waiting / f"rows-{number}-{table}", row_group_size=2)
    pq.write_table(pa.table({"id": ["r"], "raw": ["→"], "message": ["→"]}), waiting / "rows-4-_rejects")
    assert search.found(failed("_rejects", Untranslatable(LACKS)))
    assert search.done == ["given up"]
    assert sorted(search.warnings) == [
        f"The destination refuses 2 rows of {table}: LATIN1, its encoding, lacks characters."
        for table in ("identifies", "tracks")
    ]
    why = "its row of tracks is refused by the destination: its encoding LATIN1 lacks U+{}"
    assert RefusedMessages.read(search.into) == RefusedMessages(
        "duckdb d, dataset set",
        [NOON.isoformat()],
        {"→": why.format("2192"), "d": why.format("260E")},
        encoding="LATIN1",
    )
    deleted = [(table, values[:-1]) for table, _, values in search.dataset.deleted]
    assert sorted(deleted) == [("tracks", ["d"]), ("users", ["u", "u"])]
    search.into.abort_packages = lambda: None
    # The rest is searched in parts.
    assert not search.found(failed("identifies", Untranslatable(LACKS)))
    assert search.done[1] == [("identifies", 0, 2)]


def test_an_encoding_that_lacks_only_characters_of_rejected_lines_costs_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_latin1(monkeypatch)
    search = Search(tmp_path, monkeypatch, {}, [])
    waiting = tmp_path / "autopilothq" / "1-x" / "waiting"
    pq.write_table(pa.table({"id": ["r"], "raw": ["→"], "message": ["→"]}), waiting / "rows-4-_rejects")
    assert search.found(failed("_rejects", Untranslatable(LACKS)))
    assert (search.done, search.warnings) == (["given up"], [])
    expected = RefusedMessages("duckdb d, dataset set", [NOON.isoformat()], encoding="LATIN1")
    assert RefusedMessages.read(search.into) == expected


def test_a_row_is_unfit_for_the_first_character_that_an_encoding_lacks() -> None:
    parts = [pa.table({"a": ["é", "€", None]}), pa.table({"a": ["→", "é→☎"], "n": [1, 2], "b": ["→", ""]})]
    lacking = unfit.Lacking("WIN1252", {"→", "☎"})
    assert unfit.unfit_rows(parts, lacking, ["b"]) == dict.fromkeys((3, 4), "its encoding WIN1252 lacks U+2192")
    assert unfit.unfit_rows(parts, lacking, ["a"]) == {3: "its encoding WIN1252 lacks U+2192"}
    assert unfit.unfit_rows(parts, unfit.Lacking("WIN1252", set())) == {}


def test_a_database_that_cannot_tell_what_it_lacks_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfit, "lacking_characters", lambda *_: None)
    search = Search(tmp_path, monkeypatch, {"tracks 2": LACKS}, [])
    assert search.found(failed("tracks", Untranslatable(LACKS)))
    assert search.warnings == [f"{SEARCHED.format('tracks')} {LACKS}"]
    why = f"its row of tracks is refused by the destination: {LACKS}"
    expected = RefusedMessages("duckdb d, dataset set", [NOON.isoformat()], {"tracks 2": why})
    assert RefusedMessages.read(search.into) == expected


def test_texts_of_the_books_have_escapes_where_an_encoding_lacks_characters() -> None:
    sql = "FROM (VALUES ('a', 'é😀\n\\\"→\u200d', NULL), ('b', 'plain', '→')) t(id, raw, message)"
    rows = TableRows("_rejects", {"id": "text", "raw": "text", "message": "text"}, relation_of(sql), 2)
    found = RefusedMessages("d", encoding="LATIN1").without(rows)
    assert found.relation.fetchall() == [
        ("a", r"\u00E9\uD83D\uDE00" + '\n\\"' + r"\u2192\u200D", None),
        ("b", "plain", r"\u2192"),
    ]
    names: Any = dict.fromkeys(("id", "column_name", "value"), "text")
    values = TableRows("_discards", names, relation_of("SELECT 'é' id, 'ü' AS column_name, 'é' AS value"), 1)
    found = RefusedMessages("d", encoding="LATIN1").without(values)
    assert found.relation.fetchall() == [("é", r"\u00FC", r"\u00E9")]


def test_a_lakes_required_column_is_told_instead_of_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(tmp_path, monkeypatch, {}, [])
    search.into.destination_client = lambda: "a lake"
    monkeypatch.setattr(isolate, "FilesystemClient", str)
    monkeypatch.setattr(isolate, "required_columns", lambda *_: ["mine"])
    with pytest.raises(RunError, match="the column mine of users, which no message has"):
        search.found(failed("users", RuntimeError("why?")))
    assert (search.done, search.warnings) == (["given up"], [])


NO_COLUMN = duckdb.ConstraintException("NOT NULL constraint failed: tracks.plan")


@pytest.mark.parametrize(
    ("error", "bad", "searched"),
    [
        (NotLoaded(RuntimeError("no job")), {}, []),
        (failed("tracks", OSError("disk full")), {}, []),
        (failed("_dlt_loads", RuntimeError("why?")), {}, []),
        (failed("tracks", NO_COLUMN), {}, []),
        (failed("tracks", RuntimeError("why?")), {}, ["tracks"]),
        (failed("tracks", RuntimeError("why?")), {f"tracks {row}": "" for row in range(4)}, ["tracks"]),
        (failed("tracks", RuntimeError("why?")), {"tracks 1": "", "users": "_dlt_loads"}, ["tracks"]),
    ],
)
def test_what_rows_do_not_explain_refuses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: NotLoaded, bad: dict[str, str], searched: list[str]
) -> None:
    search = Search(tmp_path, monkeypatch, bad, [])
    assert not search.found(error)
    assert [warning.split()[5].rstrip(":") for warning in search.warnings] == searched
    assert search.done[:1] == ["given up"] * len(searched)
    assert (search.dataset.deleted, (tmp_path / refused.FILE).exists()) == ([], False)


@pytest.mark.parametrize(
    ("state", "hidden", "is_data"), [("23505", True, False), ("23505", False, True), ("23514", True, True)]
)
def test_a_row_that_is_hidden_from_the_user_is_not_its_copys_fault(
    monkeypatch: pytest.MonkeyPatch, state: str, hidden: bool, is_data: bool
) -> None:
    monkeypatch.setattr(isolate, "open_dataset", {"mine": "its dataset"}.get)
    monkeypatch.setattr(isolate, "tables_that_hide_rows", {"its dataset": ["users"] if hidden else []}.get)
    driver = type("Driver", (Exception,), {"sqlstate": state})("twice")
    into: Any = "mine"
    found = isolate._cause(into, failed("users", driver))
    assert found == isolate.Cause("load 1", "users", "twice", is_data)


def test_causes_are_followed_once() -> None:
    inner, outer = ValueError("inner"), RuntimeError("outer")
    chained(outer, inner, outer)
    assert list(causes(outer, *isolate._LINKS)) == [outer, inner]
    assert list(causes(None, *isolate._LINKS)) == []
    error: Any = RuntimeError()
    error.exception, error.dbapi_exception = "no error", inner
    assert list(causes(error, *isolate._LINKS)) == [error, inner, outer]


class Driver(Exception):
    pgcode: str | None = None


@pytest.mark.parametrize(
    ("state", "about"),
    [
        ("22021", True),
        ("22P05", True),
        ("23502", None),
        ("23503", None),
        ("23505", True),
        ("25006", False),
        ("28P01", False),
        ("3D000", False),
        ("3F000", False),
        ("40001", False),
        ("40P01", False),
        ("44000", True),
        ("54001", None),
        ("54000", True),
        ("54023", False),
        ("58030", False),
        ("2", None),
        ("F0000", False),
        ("HV000", None),
    ],
)
def test_the_longest_state_counts(state: str, about: bool | None) -> None:
    error = Driver()
    error.pgcode = state
    assert data_errors.is_data([error]) is about
    assert data_errors.is_data([MemoryError(), error]) is about


def test_duckdb_says_by_its_class_whether_rows_are_at_fault() -> None:
    at_fault = duckdb.ConversionException, duckdb.ConstraintException, duckdb.OutOfRangeException
    not_at_fault = (
        duckdb.IOException, duckdb.CatalogException, duckdb.BinderException, duckdb.ConnectionException,
        duckdb.OutOfMemoryException, duckdb.FatalException, duckdb.InterruptException, duckdb.TransactionException,
    )  # fmt: skip
    assert [data_errors.is_data([of("x")]) for of in at_fault] == [True] * 3
    assert [data_errors.is_data([of("x")]) for of in not_at_fault] == [False] * 8
    assert data_errors._DUCKDB.keys() == {*at_fault, *not_at_fault}
    assert data_errors.is_data([duckdb.ConstraintException("NOT NULL constraint failed: a.b")]) is None
    assert data_errors.is_data([duckdb.IOException("NOT NULL")]) is False
    assert [data_errors.is_data([of()]) for of in (OSError, MemoryError, RuntimeError)] == [False, False, None]


def test_a_delta_tables_files_and_columns_are_not_the_rows_fault(tmp_path: Path) -> None:
    write_deltalake(tmp_path, pa.table({"id": ["a"], "N": [1], "few": pa.array([1], pa.int8())}))
    table = DeltaTable(tmp_path)

    def error(change: Callable[[], object]) -> Exception:
        with pytest.raises(Exception, match=" error") as raised:  # the library also raises plain exceptions
            change()
        return raised.value

    def append(**columns: Any) -> Callable[[], object]:
        return lambda: write_deltalake(table, pa.table({"id": ["b"], **columns}), mode="append", schema_mode="merge")

    differs_in_case = error(append(n=[1]))
    too_large = error(append(few=[1000]))
    table.alter.add_constraint({"sane": "id <> 'Kernel error'"})
    refused = error(
        lambda: write_deltalake(table, pa.table({"id": ["Kernel error"]}), mode="append", schema_mode="merge")
    )
    for uri in table.file_uris():
        Path(uri.removeprefix("file://")).unlink()
    merge = table.merge(pa.table({"id": ["a"]}), "t.id = s.id", source_alias="s", target_alias="t")
    gone = error(merge.when_matched_delete().execute)
    found = [data_errors.is_data([each]) for each in (differs_in_case, gone, too_large, refused)]
    assert found == [False, False, None, None]


def test_what_is_refused_is_noted_by_what_identifies_it(tmp_path: Path) -> None:
    one = RefusedMessages("d", users={"old": "why"}, messages={"m": "why"})
    causes = {1: isolate.Cause("1", "t", "bad", True)}
    rows = files_of(tmp_path, {"id": ["a", "b"], "key": ["k", "l"]})
    for table in ("users", "accounts", "tracks", "order_done", "_rejects", "custom_fields"):
        cells = {"id": ["a", "b"], "name": ["n", "o"], "key": ["k", "l"]}
        isolate._note(one, table, files_of(tmp_path, cells), causes)
    assert rows.row_count == 2

    def error(table: str) -> str:
        return f"its row of {table} is refused by the destination: bad"

    assert one == RefusedMessages(
        "d",
        messages={"m": "why", "b": error("order_done")},
        users={"old": "why", "b": error("users")},
        accounts={"b": error("accounts")},
        emptied={"_rejects": {"b": error("_rejects")}},
        left_out={"custom_fields": {"o": error("custom_fields")}},
    )
    assert len(one) == 7


def test_a_message_is_refused_with_the_user_that_is_made_of_it(tmp_path: Path) -> None:
    one = RefusedMessages("d", messages={"m2": "why"}, users={"u1": "why"})
    rows = files_of(tmp_path, {"id": ["m1", "m2", "m3", "m4"], "user_id": ["u1", "u2", None, "u1"]})
    assert isolate._messages_of(LATEST[0], rows, one) == (["m1", "m4"], ["u2"])
    assert isolate._messages_of(LATEST[0], FileRows(()), one) == ([], [])
    groups = files_of(tmp_path, {"id": ["m1", "m2", "m3"], "group_id": ["g1", None, "u1"]})
    assert isolate._messages_of(LATEST[1], groups, one) == ([], [])
    assert isolate._messages_of(LATEST[1], groups, RefusedMessages("d", messages={"m1": "why"})) == ([], ["g1"])
    assert isolate._messages_of(LATEST[1], groups, RefusedMessages("d", accounts={"u1": "why"})) == (["m3"], [])
