"""No byte of a forgotten person is left, and the new file of a rewritten database has everything else."""

import gzip
import json
import os
import shutil
import signal
import tempfile
import time
import zlib
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import psycopg2
import pytest
import zstandard

import forked
from autopilothq import runner
from autopilothq.catalog import SUPPRESSIONS
from autopilothq.errors import RunError
from autopilothq.privacy import rewrite
from autopilothq.segment.identity import Id, hash_of
from autopilothq.warehouses.resolve import DUCKDB_CONFIG
from calling import Call, errors
from fake_autopilot import FakeAutopilot
from faults import forgetting
from faults.forgetting import Plan, words
from faults.loads import Table, assert_same, content, line, load, pipeline, track
from faults.test_killed import clean_environment
from searching import found_in, mentions

ADA = ["ada.o'hara+7@example.com", "ada@old.example", "ada-4711", "anon-ada-9"]
BOB = ["bob@work.example", "bob-0815", "anon-bob-9"]
# All three are named, because a user id with two emails is not followed from either.
NAMED = ["--email", ADA[0], "--email", ADA[1], "--user-id", ADA[2]]
EVE = ["eve@example.com", "eve-77"]


def lines_of(email: str, older: str, user_id: str, anonymous_id: str, number: int) -> list[Any]:
    """Returns a person's messages by email, user id, alias and older email, broken lines, and a discarded value."""
    escaped = json.dumps(email).replace("@", "\\u0040").encode()
    return [
        track(number, userId=user_id, context={"traits": {"email": email.upper()}}),
        {"type": "identify", "messageId": f"i-{number}", "userId": user_id, "traits": {"email": older, "name": "A"}},
        {"type": "alias", "messageId": f"a-{number}", "userId": user_id, "previousId": anonymous_id},
        track(number + 1, userId=None, anonymousId=anonymous_id, properties={"note": f"{email}\0"}),
        track(number + 2, event="Signed Up", userId=None, anonymousId="x", properties={"email": email.title()}),
        {"type": "delete", "messageId": f"d-{number}", "userId": user_id},
        b'{"type":"track","email":' + escaped + b", broken",
        b"a line that mentions " + email.encode() + b".",
        b'{"type":"track","userId":"' + user_id.encode() + b'","broken',
    ]


ALL = [
    *lines_of(ADA[0], ADA[1], ADA[2], ADA[3], 10),
    *lines_of(BOB[0], BOB[0], BOB[1], BOB[2], 20),
    *(track(number, userId=EVE[1], context={"traits": {"email": EVE[0]}}) for number in range(3)),
]


def write_archive() -> None:
    text = b"".join(map(line, ALL))
    Path("archive").mkdir()
    Path("archive/a.ndjson").write_bytes(text)
    Path("archive/b.gz").write_bytes(gzip.compress(text[:900]) + gzip.compress(text[900:]))
    Path("archive/c.zst").write_bytes(zstandard.compress(text))


# The people whose events were requested from Segment's Profile API.
PROFILES = f"CREATE TABLE autopilothq._profiles AS SELECT 'email:{ADA[0].replace(chr(39), chr(39) * 2)}' AS person"
KILLED = """
import os, sys
from autopilothq import cli
from faults.killed import kill_at
sys.argv = ["autopilothq", "load", "archive", "later.ndjson"]
for point in (
    ("dlt.extract.storage:ExtractStorage.commit_new_load_package", "before", 1),
    ("dlt.common.storages.load_storage:LoadStorage.commit_new_load_package", "before", 1),
):
    if not os.fork():
        kill_at(*point)
        cli.main()
    print(os.wait()[1])
"""


def leave_killed_loads() -> None:
    """Leaves two killed loads: one that dlt was extracting, and one that it was normalizing."""
    Path("later.ndjson").write_bytes(b"".join(map(line, ALL)))
    done = forked.run("-c", KILLED)
    assert done.stdout.split() == [str(int(signal.SIGKILL))] * 2, done.stderr
    Path("later.ndjson").unlink()


def forget(call: Call, *say: str) -> dict[str, Any]:
    said = call("forget", *say, "--json")
    assert (said.status, said.err) == (0, "")
    made: dict[str, Any] = json.loads(said.out)
    return made


# ---- every byte -----------------------------------------------------------------------------------------------------


@contextmanager
def everything_loaded(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Makes a dataset that has Ada and Bob in all tables and books; returns Ada's contact id."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("LOAD__DELETE_COMPLETED_JOBS", "false")  # as loads in plain dlt leave them
    write_archive()
    assert call("load", "archive", "archive").status == 0
    with FakeAutopilot(contacts=12) as account:
        for part, name in (("SOURCES", "API_KEY"), ("DESTINATION", "API_KEY")):
            monkeypatch.setenv(f"{part}__AUTOPILOTHQ__{name}", account.key)
            monkeypatch.setenv(f"{part}__AUTOPILOTHQ__BASE_URL", account.base_url)
            monkeypatch.setenv(f"{part}__AUTOPILOTHQ__REQUESTS_PER_SECOND", "10000")
        contact = account.account.contact_id(0)
        account.account.change(contact, Email=ADA[0])
        assert call("load", "api").status == 0
        Path("send.ndjson").write_bytes(line({"type": "identify", "messageId": "s", "traits": {"email": ADA[0]}}))
        assert call("send", "messages", "send.ndjson").status == 0
        Path("send.ndjson").unlink()
        yield contact


def damage(tmp_path: Path, text: str) -> Path:
    """Leaves a folder that was set aside as unreadable, with a text in it; returns dlt's working folder."""
    [working] = (tmp_path / "dlt/pipelines").glob("autopilot_events*/")
    (working / "state.json").write_text(f'{{"{text}')
    (working / "trace.pickle").write_text(text)
    return working


def test_no_byte_is_left_in_duckdb(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with everything_loaded(call, tmp_path, monkeypatch) as contact:
        leave_killed_loads()
        with duckdb.connect("autopilot.duckdb") as con:
            con.execute(PROFILES)
        ada = [*ADA, contact]
        before = found_in(tmp_path, ada)
        assert {"work/autopilot.duckdb", "work/archive/a.ndjson", "work/archive/b.gz", "work/archive/c.zst"} <= before
        folders = {name.removeprefix("dlt/pipelines/autopilot_events/").partition("/")[0] for name in before}
        assert {"normalize", "load", "autopilothq", "autopilothq-scan"} <= folders
        removed = forget(call, *NAMED, "--archive", "archive")
        assert {"contacts", "_deliveries", "_rejects", "_discards", "aliases", "users", "_profiles"} <= removed[
            "rows"
        ].keys()
        file = f"{Path.cwd()}/autopilot.duckdb"
        assert removed["remains"] == (
            f"The removed rows may still be in {file}. DuckDB frees their blocks without overwriting them:"
            " `forget --rewrite` writes a new file."
        )
        assert removed["rewritten"] == []
        assert found_in(tmp_path, ada) == {"work/autopilot.duckdb"}

        assert "work/autopilot.duckdb" in found_in(tmp_path, BOB)
        working = damage(tmp_path, BOB[1])
        said = call("forget", "--user-id", BOB[1], "--archive", "archive", "--rewrite", "--json")
        assert said.status == 0
        anew = json.loads(said.out)
        assert (anew["rewritten"], anew["remains"], anew["left"]) == ([file], None, {})
        assert anew["lines"] == {f"{Path.cwd()}/archive/{name}": 9 for name in ("a.ndjson", "b.gz", "c.zst")}
        assert found_in(tmp_path, [*ada, *BOB]) == set()
        assert not (working / "trace.pickle").exists()
    tables = content(Path("autopilot.duckdb"))
    assert not mentions(repr([table.rows for table in tables.values()]).encode(), [*ada, *BOB])
    with duckdb.connect("autopilot.duckdb") as con:
        states = con.sql("SELECT state FROM autopilothq._dlt_pipeline_state").fetchall()
    assert not any(mentions(zlib.decompress(b64decode(state)), [*ada, *BOB]) for (state,) in states)
    stays(tables)
    assert "work/autopilot.duckdb" in found_in(tmp_path, EVE)  # proves that the search finds what is there


def stays(tables: dict[str, Table]) -> None:
    """Checks that the hashes and Eve's rows stay."""
    listed = tables[SUPPRESSIONS.name].dicts()
    assert {row["kind"] for row in listed} == {"email", "user_id", "anonymous_id", "contact_id"}
    assert {hash_of(listed[0]["salt"], id_) for id_ in (Id("email", ADA[0]), Id("user_id", BOB[1]))} <= {
        row["id"] for row in listed
    }
    assert sorted(row["id"] for row in tables["tracks"].dicts() if row["user_id"] == EVE[1]) == [
        f"m-{number}" for number in range(3)
    ]


def test_no_byte_is_left_in_postgres(
    call: Call, postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres)
    monkeypatch.setenv("DESTINATION_TYPE", "postgres")
    with everything_loaded(call, tmp_path, monkeypatch) as contact, closing(psycopg2.connect(postgres)) as server:
        server.autocommit = True
        cursor = server.cursor()
        everybody = [*ADA, contact, *BOB]
        cursor.execute(PROFILES)
        cursor.execute('CREATE TABLE autopilothq."Own" ("Email" text)')
        cursor.execute('INSERT INTO autopilothq."Own" SELECT %s FROM generate_series(1, 9)', ADA[:1])
        cursor.execute("ANALYZE")
        cursor.execute("CHECKPOINT")
        files = relations(cursor)
        assert found_in(files, everybody)
        removed = forget(call, *NAMED, "--archive", "archive")
        assert removed["remains"] == (
            "The removed rows may still be in its storage. PostgreSQL keeps them in its files:"
            " `forget --rewrite` vacuums all tables (VACUUM FULL)."
        )
        anew = forget(call, "--user-id", BOB[1], "--archive", "archive", "--rewrite")
        assert (anew["remains"], anew["left"]) == (None, {})
        assert {"autopilothq.tracks", "autopilothq.Own", "autopilothq_staging.users"} <= set(anew["rewritten"])
        cursor.execute("CHECKPOINT")
        assert found_in(files, everybody) == set()
        assert found_in(tmp_path, everybody) == set()
        assert found_in(files, EVE)
        assert texts(cursor, everybody) == []
        cursor.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
        for schema in ("autopilothq", "autopilothq_staging"):
            cursor.execute(f"GRANT ALL ON SCHEMA {schema} TO guest")
            cursor.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO guest")
        guest = postgres.replace(postgres.partition("://")[2].partition("@")[0], "guest:guest")
        try:
            said = call("forget", "--user-id", EVE[1], "--rewrite", "--json", "--credentials", guest)
        finally:
            cursor.execute("DROP OWNED BY guest CASCADE")
            cursor.execute("DROP ROLE guest")
    assert said.status == 1
    made = json.loads(said.out)
    why = 'permission denied to vacuum "tracks", skipping it'
    assert (made["left"]["autopilothq.tracks"], made["rewritten"]) == (why, [])
    assert made["remains"] == (
        "The planner's old samples of rows may still be in pg_statistic:"
        ' permission denied to vacuum "pg_statistic", skipping it.'
    )


def relations(cursor: Any) -> Path:
    """Returns the folder with the files of the database's tables, indexes and catalogues."""
    cursor.execute("SELECT current_setting('data_directory'), oid FROM pg_database WHERE datname = current_database()")
    home, oid = cursor.fetchone()
    return Path(home, "base", str(oid))


def texts(cursor: Any, needles: Sequence[str]) -> list[str]:
    """Returns the tables of all schemas whose rows mention somebody."""
    cursor.execute("SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables")
    found = []
    for (table,) in cursor.fetchall():
        cursor.execute(f"SELECT t::text FROM {table} t")
        if mentions("\n".join(row for (row,) in cursor.fetchall()).encode(), needles):
            found.append(table)
    return found


# ---- the new file ---------------------------------------------------------------------------------------------------

OTHERS = """
    CREATE SCHEMA "other's"; CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE SEQUENCE numbers START 5;
    CREATE TABLE kept (
        id BIGINT PRIMARY KEY DEFAULT nextval('numbers'), mood mood, name TEXT NOT NULL DEFAULT 'x', u TEXT UNIQUE,
        twice BIGINT GENERATED ALWAYS AS (id * 2) VIRTUAL, CHECK (id > 0)
    );
    INSERT INTO kept (mood, name, u) SELECT 'good', 'name ' || i, i::TEXT FROM range(3000) r(i);
    CREATE TABLE "other's"."odd ""one" (
        "a b" INTEGER[], s STRUCT(a INTEGER, b TEXT), m MAP(TEXT, INTEGER), t TIMESTAMPTZ, d DECIMAL(18, 3), b BLOB
    );
    INSERT INTO "other's"."odd ""one" VALUES ([1, NULL], {'a': 1, 'b': 'é'}, MAP {'k': 1}, now(), 1.5, 'ab'::BLOB);
    INSERT INTO "other's"."odd ""one" SELECT * FROM "other's"."odd ""one";
    CREATE INDEX by_name ON kept (name);
    CREATE VIEW z AS SELECT 1 AS one; CREATE VIEW a AS SELECT * FROM z, autopilot.main.kept;
    CREATE MACRO plus(x) AS x + 1; CREATE MACRO all_kept() AS TABLE SELECT * FROM kept;
    COMMENT ON TABLE kept IS 'it''s kept'; COMMENT ON COLUMN kept.name IS 'a name'; COMMENT ON VIEW a IS 'a view';
    COMMENT ON INDEX by_name IS 'an index'; COMMENT ON SEQUENCE numbers IS 'a sequence'; COMMENT ON TYPE mood IS 'm';
    COMMENT ON MACRO plus IS 'a macro'"""
CATALOGUES = {
    "duckdb_schemas": "schema_name",
    "duckdb_tables": "schema_name, table_name, comment, sql",
    "duckdb_columns": "schema_name, table_name, column_name, comment, column_default, is_nullable, data_type",
    "duckdb_constraints": "schema_name, table_name, constraint_text",
    "duckdb_indexes": "schema_name, index_name, comment, sql",
    "duckdb_views": "schema_name, view_name, comment, sql",
    "duckdb_sequences": "schema_name, sequence_name, comment, start_value, increment_by, last_value",
    "duckdb_functions": "schema_name, function_name, parameters, comment, macro_definition",
    "duckdb_types": "schema_name, type_name, comment, labels",
    "duckdb_databases": "tags",
}


def inventory(file: str) -> dict[str, list[tuple[Any, ...]]]:
    """Returns the whole content of a DuckDB file: its catalogue, and the rows of all tables."""
    with duckdb.connect(file, read_only=True) as con:
        found = {
            catalogue: con.sql(
                f"SELECT {columns} FROM {catalogue}() WHERE database_name = current_database() ORDER BY ALL"
            ).fetchall()
            for catalogue, columns in CATALOGUES.items()
        }
        tables = con.sql("SELECT schema_name, table_name FROM duckdb_tables() WHERE NOT temporary").fetchall()
        for schema, table in tables:
            name = ".".join('"' + part.replace('"', '""') + '"' for part in (schema, table))
            found[name] = sorted(con.sql(f"FROM {name}").fetchall(), key=repr)
        return found


def test_the_new_file_has_all_that_the_old_one_had(call: Call, house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrite, "DUCKDB_CONFIG", DUCKDB_CONFIG | {"memory_limit": "1KB"})  # the destination's limit
    shutil.copy(house / OTHER / "autopilot.duckdb", "autopilot.duckdb")
    assert call("forget", "--user-id", "nobody").status == 0
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute(OTHERS)
    os.chmod("autopilot.duckdb", 0o640)
    Path("link.duckdb").symlink_to("autopilot.duckdb")
    before, inode = inventory("autopilot.duckdb"), os.stat("autopilot.duckdb").st_ino
    assert (len(before['"main"."kept"']), [name for _, name, *_ in before["duckdb_views"] if name in "az"]) == (
        3000,
        ["a", "z"],
    )
    names = sorted(os.listdir())
    said = call("forget", "--user-id", "nobody", "--rewrite")
    assert (said.status, errors(said)) == (0, [])
    assert said.out.splitlines()[-2:] == [
        "Nothing was found of this person; ids kept out of later loads: 1; files or tables rewritten: 1",
        f"from {Path.cwd()}/autopilot.duckdb, dataset autopilothq",
    ]
    assert inventory("autopilot.duckdb") == before
    assert os.stat("autopilot.duckdb").st_ino != inode
    assert os.stat("autopilot.duckdb").st_mode & 0o777 == 0o640
    assert sorted(os.listdir()) == names
    assert Path("link.duckdb").is_symlink()
    with duckdb.connect("autopilot.duckdb") as con:
        assert con.sql("SELECT nextval('numbers') > 3000, (SELECT count(*) FROM a)").fetchall() == [(True, 3000)]

    # Objects that cannot be copied are refused before anything is changed.
    shutil.copy("autopilot.duckdb", "keys.duckdb")
    with duckdb.connect("keys.duckdb") as con:
        con.execute("CREATE TABLE child (id BIGINT REFERENCES kept (id))")
    refused(
        call,
        "keys.duckdb",
        f"Error: --rewrite cannot copy all of {Path.cwd()}/keys.duckdb into a new file (DuckDB's COPY FROM DATABASE):"
        " the foreign key of main.child.",
        "Nothing was changed. Drop these, or leave out --rewrite and rewrite the file by hand.",
    )
    os.link("autopilot.duckdb", "hard.duckdb")
    refused(
        call,
        "autopilot.duckdb",
        f"Error: {Path.cwd()}/autopilot.duckdb has another name as well (a hard link), which would keep the old file.",
        "Remove that name, then run this again.",
    )
    os.unlink("hard.duckdb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_000_000))
        size = os.path.getsize("autopilot.duckdb") * 1.1 / 1e6
        refused(
            call,
            "autopilot.duckdb",
            f"Error: --rewrite needs {size:,.1f} MB for a new file next to {Path.cwd()}/autopilot.duckdb, but 1.0 MB"
            " are free.",
            "Make room on that disk, then run this again.",
        )


def refused(call: Call, file: str, *texts: str) -> None:
    before = Path(file).read_bytes()
    said = call("forget", "--user-id", EVE[1], "--rewrite", "--credentials", file)
    assert (said.status, errors(said)) == (1, list(texts))
    assert Path(file).read_bytes() == before
    assert not list(Path().glob(".*.rewrite"))


COPY_ROWS = rewrite._copy_rows
# A change that is made while the first table is copied, and the error.
DIFFERENCES = {
    "DELETE FROM {new} WHERE n = 3": "table main.t (1,000 rows, but 999 in the copy)",
    "UPDATE {new} SET n = -n WHERE n = 3": "table main.t (1,000 rows, but other values in the copy)",
    "ALTER TABLE {new} RENAME n TO m": "column main.t.m, column main.t.n, table main.t",
}


@pytest.mark.parametrize("change", DIFFERENCES)
def test_a_copy_that_differs_replaces_no_file(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("CREATE TABLE t AS SELECT range AS n FROM range(1000); CREATE TABLE u AS SELECT 1 AS n")

    def wrong(engine: duckdb.DuckDBPyConnection, old: str, new: str) -> None:
        COPY_ROWS(engine, old, new)
        if new.endswith('"t"'):
            engine.execute(change.format(new=new))

    monkeypatch.setattr(rewrite, "_copy_rows", wrong)
    before = Path("autopilot.duckdb").read_bytes()
    with pytest.raises(RunError) as error:
        rewrite.rewrite(runner.pipeline())
    assert str(error.value) == (
        f"The copy of {Path('autopilot.duckdb').absolute()} differs from it, so the old file stays:"
        f" {DIFFERENCES[change]}.\nAll rows that were to be deleted are deleted. Please report this."
    )
    assert (Path("autopilot.duckdb").read_bytes(), list(Path().glob(".*"))) == (before, [])


@pytest.mark.parametrize("name", ["memory", 'it\'s "my".data %s'])
def test_a_file_may_have_any_name(name: str) -> None:
    file = f"{Path.cwd()}/{name}.duckdb"
    with duckdb.connect(file) as con:
        con.execute("CREATE TABLE t AS SELECT 1 AS n; CREATE VIEW v AS FROM t")
    before, inode = inventory(file), os.stat(file).st_ino
    into = runner.pipeline("duckdb", file)
    rewrite.check_rewritable(into)
    assert rewrite.rewrite(into) == ([file], {}, None)
    assert (inventory(file), os.stat(file).st_ino != inode) == (before, True)


def test_where_it_can_do_nothing() -> None:
    kinds = rewrite.KEPT | {"mssql": rewrite.OTHERS}
    for kind in sorted(kinds.keys() - {"duckdb", "postgres"}):
        destination = SimpleNamespace(config=SimpleNamespace(destination_type=f"dlt.destinations.{kind}"))
        into: Any = SimpleNamespace(destination_client=lambda destination=destination: destination)
        if kind == "filesystem":  # in a lake, old versions are removed
            rewrite.check_rewritable(into)
        else:
            with pytest.raises(runner.RunError) as raised:
                rewrite.check_rewritable(into)
            assert str(raised.value) == (
                f"--rewrite can do nothing in {kind}: {kinds[kind]}.\n"
                "Leave it out; docs/how-to/forget.md says what keeps removed rows there, and for how long."
            )
        why = rewrite.KEPT.get(kind, f"{kind}: {rewrite.OTHERS}")
        assert rewrite.remains(into) == f"The removed rows may still be in its storage. {why}."


# ---- killed ---------------------------------------------------------------------------------------------------------

MESSAGES: list[Any] = [
    {"type": "identify", "messageId": "i-1", "userId": "ada", "traits": {"email": "ada@example.com"}},
    *(track(number, userId="ada") for number in range(5)),
    *(track(number, userId="bob") for number in range(5, 10)),
]
REWRITE = "autopilothq.privacy.rewrite"
POINTS: dict[str, tuple[str, str, int]] = {
    "tried": (f"{REWRITE}:_check_copy", "after", 1),
    "copied": (f"{REWRITE}:_check_identical", "before", 1),
    "checked": (f"{REWRITE}:_swap", "before", 1),
    "replaced": ("autopilothq.disk:sync", "before", 2),
    "done": (f"{REWRITE}:_swap", "after", 1),
}
BIG = "being copied"
OTHER = "for another test"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder that has a loaded dataset with its archive for each point."""
    house = tmp_path_factory.mktemp("rewriting")
    (house / "loaded" / "archive").mkdir(parents=True)
    (house / "loaded/archive/a.json").write_bytes(b"".join(map(line, MESSAGES)))
    load(pipeline(house / "loaded"), house / "loaded" / "archive")
    for name in (*POINTS, BIG, OTHER):
        shutil.copytree(house / "loaded", house / name)
    return house


@pytest.fixture(scope="module")
def ended(house: Path) -> dict[str, int]:
    """The exit status of each plan's process."""
    listed = house / "plans.json"
    plans = [Plan(str(house / name), point, piecemeal=False, rewrite=True) for name, point in POINTS.items()]
    listed.write_text(json.dumps(plans))
    done = forked.run(forgetting.__file__, str(listed), cwd=house, env=clean_environment())
    statuses = [int(text.split()[1]) for text in done.stdout.splitlines()]
    assert len(statuses) == len(plans), done.stderr
    return dict(zip(POINTS, statuses, strict=True))


@pytest.mark.parametrize("point", POINTS)
def test_after_a_kill_a_whole_file_is_there(point: str, house: Path, ended: dict[str, int], call: Call) -> None:
    assert ended[point] == -signal.SIGKILL
    completes(house / point, call)


def completes(folder: Path, call: Call) -> None:
    """Checks that the file is complete, and that the same call again leaves no byte of Ada and no extra file."""
    file = folder / "autopilot.duckdb"
    assert [row["id"] for row in content(file)["tracks"].dicts() if row["user_id"] == "bob"]
    left = folder / ".autopilot.duckdb.rewrite"
    assert not left.exists() or left.stat().st_mode & 0o777 == 0o700
    said = call(*words(str(folder), rewrite=True))
    assert said.status == 0, said.err
    tables, expected = content(file), undisturbed(folder.with_name("loaded"), call)
    assert [sorted(row["kind"] for row in each.pop(SUPPRESSIONS.name).dicts()) for each in (tables, expected)] == [
        ["email", "user_id"],
        ["email", "user_id"],
    ]
    tables.pop("big", None)
    assert_same(tables, expected)
    assert not left.exists()
    assert not Path(f"{file}.wal").exists()
    assert not mentions(file.read_bytes(), ["ada@example.com"])


def undisturbed(folder: Path, call: Call) -> dict[str, Table]:
    """The result of an undisturbed call."""
    file = folder / "autopilot.duckdb"
    found = content(file)
    if SUPPRESSIONS.name in found:
        return found
    assert call(*words(str(folder), rewrite=True)).status == 0
    return content(file)


def test_killed_while_rows_are_copied(house: Path, call: Call) -> None:
    folder = house / BIG
    with duckdb.connect(str(folder / "autopilot.duckdb")) as con:
        con.execute("CREATE TABLE big AS SELECT uuid() AS a, uuid() AS b FROM range(500000)")
    program = f"import sys; sys.argv = ['autopilothq', *{words(str(folder), rewrite=True)!r}]"
    running = forked.start(
        "-c", f"{program}; from autopilothq import cli; cli.main()",
        cwd=folder, env=clean_environment() | {"DLT_DATA_DIR": str(folder / "dlt")}, stdout=forked.DEVNULL,
    )  # fmt: skip
    new = folder / ".autopilot.duckdb.rewrite" / rewrite.NEW
    until = time.monotonic() + 60
    while not (new.exists() and new.stat().st_size > 1_000_000):
        assert running.poll() is None
        assert time.monotonic() < until
        time.sleep(0.002)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    assert new.exists()
    completes(folder, call)
    with duckdb.connect(str(folder / "autopilot.duckdb")) as con:
        assert con.sql("SELECT count(*) FROM big").fetchall() == [(500_000,)]
