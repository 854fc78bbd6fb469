"""`export`: what comes out of a dataset makes the same tables again."""

import gzip
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autopilothq import sample
from autopilothq.catalog import EXPORT_MARK
from autopilothq.errors import BusyError, RunError
from autopilothq.export import ExportBucket, ExportFolder, export_archive
from autopilothq.export.archive import LEFT_OUT_REASONS
from autopilothq.export.bucket import MARKS
from autopilothq.export.days import DayFiles
from autopilothq.sources.archive.discover import list_files
from autopilothq.warehouses.dataset import NativeType
from contract import generated
from contract.loading import Line, Row, Store, message, raw, to_line, write
from servers import S3, ask
from shared_loads import command, isolation
from test_forward import EVENTS, LINES

# What a load writes of itself: when it came, and where each line stood.
OF_THE_LOAD = {"uuid_ts", "discarded_at"}
PLACES = {"id", "file", "line", "rejected_at"}


class StoredTables:
    """A store as the dataset that an export reads."""

    dialect = "duckdb"

    def __init__(self, store: Store) -> None:
        self.store = store

    def columns(self) -> dict[str, dict[str, NativeType]]:
        return {
            name: {column: NativeType(of, of) for column, of in types.items()}
            for name, types in self.store.types.items()
        }

    def tables(self, names: Sequence[str]) -> dict[str, Any]:
        return {name: self.store.types[name] for name in names if name in self.store.types}

    def views(self) -> set[str]:
        return set()

    def read(self, table: str, columns: Sequence[str], _: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
        return self.store._read(table, columns)

    def rows(self, select: str, table: str, _: str = "") -> list[tuple[Any, ...]]:
        rows = self.store.rows[table].values()
        if select == "count(*)":
            return [(len(rows),)]
        events = [row["event"] for row in rows]
        return [(event, events.count(event)) for event in set(events)]


def exported(store: Store, folder: Path) -> list[bytes]:
    """The lines that an export of a store writes."""
    with ExportFolder(folder) as files:
        export_archive(StoredTables(store), files)  # type: ignore[arg-type]
    return [
        line for file in sorted(folder.rglob("*.gz")) for line in gzip.decompress(file.read_bytes()).splitlines(True)
    ]


def shown(store: Store) -> dict[str, list[str]]:
    """The rows of all tables, without what a load writes of itself, and the types of their columns."""
    found = {name: sorted(map(_shown, rows)) for name, rows in store.tables().items() if name != "_rejects"}
    found["_rejects"] = sorted(
        _shown({key: cell for key, cell in row.items() if key not in PLACES})
        for row in store.tables().get("_rejects", [])
        if row["reason"] not in LEFT_OUT_REASONS
    )
    types = [f"{name}.{column} {of}" for name, types in store.types.items() for column, of in types.items()]
    return {name: rows for name, rows in found.items() if rows} | {"types": sorted(types)}


def _shown(row: Row) -> str:
    return ", ".join(
        f"{key}: {cell!r}" for key, cell in sorted(row.items()) if cell is not None and key not in OF_THE_LOAD
    )


def differences(lines: Sequence[Line], folder: Path) -> list[str]:
    """The rows and types in which the tables of an export differ from those that it was made of."""
    store, again = Store(), Store()
    store.run([line for line in lines if to_line(line).strip()])
    texts = exported(store, folder)
    again.run([text.rstrip(b"\n") for text in texts])
    before, after = shown(store), shown(again)
    return [
        f"{sign} {name}: {row}"
        for name in sorted(before.keys() | after.keys())
        for sign, mine, other in (("-", before, after), ("+", after, before))
        for row in sorted(set(mine.get(name, [])) - set(other.get(name, [])))
    ]


@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(generated.messages(st.integers(1, 99).map('"{}"'.format)), min_size=50, max_size=90))
def test_messages_make_the_same_tables_again(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    found = differences(lines, tmp_path_factory.mktemp("out"))
    assert found == []


def test_what_a_limit_had_no_room_for_finds_room_where_there_is_some(tmp_path: Path) -> None:
    store, again = Store(max_event_tables=0), Store()
    store.run([message("Seats Changed", messageId="s1", properties={"seats": 3, "by": {"name": "Ada"}})])
    assert "seats_changed" not in store.rows
    again.run([line.rstrip(b"\n") for line in exported(store, tmp_path / "out")])
    [row] = again.tables()["seats_changed"]
    assert (row["id"], row["event_text"], row["seats"], row["by_name"]) == ("s1", "Seats Changed", 3, "Ada")


def test_a_second_body_or_context_of_a_message_makes_no_column(tmp_path: Path) -> None:
    twice = '{"a":"b"},"properties":{"second":"c"},"context":{"ip":"d"},"context":{"second":"e"}'
    found = differences([raw(message("Seats Changed", messageId="s1", properties="$p"), p=twice)], tmp_path / "out")
    assert [text for text in found if "_discards" not in text] == []


# ---- whole loads -----------------------------------------------------------------------------------------------------

ODD = [
    *LINES,
    *EVENTS,
    message("名前", messageId="no-table", properties={"a": 1, "b": ["x"]}),
    message(messageId="unfit", properties={"transactional": "maybe", "n": 1, "名": 2, "in": {"é": [1.5], "b": "2"}}),
    raw(message(messageId="twice", properties="$p"), p='{"linkURL":"first","link_url":"second","Link Url":"third"}'),
    message(messageId="late", receivedAt="yesterday", sentAt="2019-03-04T05:06:07Z", timestamp="tomorrow"),
    message("Seats Changed", messageId="s1", properties={"seats": 3, "share": 2.0, "at": "2019-03-04T05:06:07+01:00"}),
    message("Seats Changed", messageId="s2", properties={"seats": "many", "share": 1, "at": "2019-03-04T05:06:07.25Z"}),
    raw(message(messageId="texts", userId="[1]", event="[2]", context="$c"), c='{"traits":"x","traits_email":"a@b.c"}'),
    raw(message(messageId="nul", properties="$p", context="$c"), p='{"a":"\\u0000"}', c='{"ip":"\\ud800"}'),
    {"type": "delete", "userId": "u1"},
    '{"type":"track",',
]  # fmt: skip
SAMPLE, REJECTED = 300, 2
MESSAGES = SAMPLE - 1 + len(ODD) - REJECTED  # one of the sample's comes twice
CHANGED = {  # by each load
    "_discards": {"discarded_at"},
    "_rejects": {"id", "file", "line", "rejected_at"},
    "_audit": {"file", "version", "size", "lines", "stored", "duplicates", "rejected", "first_received_at",
               "last_received_at", "load_id", "loaded_at"},
}  # fmt: skip


def tables_of(folder: Path) -> dict[str, tuple[dict[str, str], list[Row]]]:
    """The columns with their types and the rows of all tables, of an export to Parquet."""
    found = {}
    for file in sorted(folder.glob("*.parquet")):
        table = pq.read_table(file)
        kept = [name for name in table.column_names if name not in CHANGED.get(file.stem, set()) | {"uuid_ts"}]
        rows = sorted(table.select(kept).to_pylist(), key=repr) if file.stem != "_audit" else []
        found[file.stem] = ({name: str(table.schema.field(name).type) for name in table.column_names}, rows)
    return found


@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
def test_a_dataset_that_was_exported_and_loaded_has_the_same_tables(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = "out" if kind == "duckdb" else f"{s3.bucket()}/some/out"
    with isolation(tmp_path):
        for name, value in s3.credentials.items():
            monkeypatch.setenv(f"SOURCES__AUTOPILOTHQ__CREDENTIALS__{name.upper()}", value)
        url = request.getfixturevalue("postgres") if kind == "postgres" else "events.duckdb"
        target = ["--destination", kind, "--credentials", url]
        sample.write("archive", events=SAMPLE)
        write("odd.jsonl", *ODD)  # type: ignore[arg-type]
        assert command("load", "archive", "archive", *target).status == 0

        said = command("export", out, *target)
        assert (said.status, said.err) == (0, "")
        assert said.out == f"{out}: {MESSAGES} messages, {REJECTED} rejected lines, 9 files\n"
        assert command("load", "archive", out, *target, "--dataset", "again").status == 0

        for name in ("autopilothq", "again"):
            assert command("export", name, "--format", "parquet", *target, "--dataset", name).status == 0
        before, after = tables_of(Path("autopilothq")), tables_of(Path("again"))
        assert before.keys() == after.keys()
        for name, found in before.items():
            assert after[name] == found, name
        assert len(before) > 20


def test_own_tables_are_exported_however_their_names_are_spelt(tmp_path: Path, postgres: str) -> None:
    own = (
        'CREATE TABLE autopilothq."MyShoes" ("ShoeSize" integer, name text)',
        "INSERT INTO autopilothq.\"MyShoes\" VALUES (43, 'brogue')",
    )
    # PostgreSQL tells names apart that differ in capitals alone, and so does the export.
    twins = (
        'CREATE TABLE autopilothq.myshoes (name integer, "Name" text)',
        "INSERT INTO autopilothq.myshoes VALUES (7, 'x')",
    )
    with isolation(tmp_path):
        write("1.jsonl", LINES[0])
        for kind, url in (("duckdb", "events.duckdb"), ("postgres", postgres)):
            target = ("--destination", kind, "--credentials", url)
            assert command("load", "archive", "archive", *target).status == 0
            if kind == "duckdb":
                with duckdb.connect(url) as con:
                    for statement in own:
                        con.execute(statement)
            else:
                ask(url, "; ".join((*own, *twins)))
            said = command("export", kind, "--format", "parquet", *target)
            left_out = "" if kind == "duckdb" else "Warning: Not exported: myshoes: Name\n"
            assert (said.status, said.err) == (0, left_out)
        shoes = [{"shoesize": 43, "name": "brogue"}]
        assert pq.read_table("duckdb/myshoes.parquet").to_pylist() == shoes
        assert pq.read_table("postgres/MyShoes.parquet").to_pylist() == shoes
        assert pq.read_table("postgres/myshoes.parquet").to_pylist() == [{"name": 7}]


# ---- the folder ------------------------------------------------------------------------------------------------------


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_files_have_their_names_once_all_are_whole_and_are_their_owners(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with ExportFolder(out) as files:
        days = DayFiles(files)
        days.add(1, b"a\n")
        days.flush()
        days.add(1, b"b\n")
        days.add(-1, b"c\n")
        days.flush()
        assert [name[0] for name in names(out)] == ["."] * 3
        assert list(list_files([str(out)])) == []
        assert files.publish() == 2
    made = [f"segment-logs/autopilothq/{day}/export-0001.gz" for day in (-86400000, 86400000)]
    assert names(out) == made
    assert [gzip.decompress((out / name).read_bytes()) for name in made] == [b"c\n", b"a\nb\n"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.rglob("*.gz")} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (out, out / "segment-logs")} == {0o700}


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("x")
    with pytest.raises(RunError) as error, ExportFolder(out):
        pass
    assert str(error.value) == (
        f"Expected {out} to be an empty folder, or a new one, but there is something in it.\n"
        "Name another folder, or move what is in it."
    )
    assert names(out) == ["mine.txt"]


def test_an_export_that_was_cut_off_starts_anew(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ExportFolder(out) as files:
        files.append("segment-logs/autopilothq/0/export-0001.gz", b"half")
        files.create("tracks.parquet").close()
    (out / "mine.parquet.txt").write_text("x")
    assert len(names(out)) == 4
    with ExportFolder(out) as files:
        files.append("segment-logs/autopilothq/0/export-0001.gz", b"whole")
        files.publish()
    assert names(out) == ["mine.parquet.txt", "segment-logs/autopilothq/0/export-0001.gz"]
    assert (out / "segment-logs/autopilothq/0/export-0001.gz").read_bytes() == b"whole"


def test_what_others_put_into_the_archive_of_a_cut_off_export_is_said_before_anything_is_read(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ExportFolder(out) as files:
        files.append("segment-logs/autopilothq/0/export-0001.gz", b"half")
    (out / "segment-logs").mkdir()
    (out / "segment-logs" / "mine.txt").write_text("x")
    for _ in range(2):  # the first one keeps no lock
        with pytest.raises(RunError, match=f"^Expected {out} to be an empty folder"), ExportFolder(out):
            pass
    assert "segment-logs/mine.txt" in names(out)


def test_two_exports_do_not_write_to_one_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ExportFolder(out) as first:
        first.append("a.gz", b"1")
        with pytest.raises(BusyError) as error, ExportFolder(out):
            pass
        assert str(error.value) == f"Another export writes to {out}. Name another folder, or wait for it."
        assert first.publish() == 1


@pytest.mark.parametrize("cut_off", [True, False])
def test_what_another_export_published_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_off: bool
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    if cut_off:
        (out / EXPORT_MARK).write_text("of another export, which ends now")

    def ended(*_: object) -> None:
        if cut_off:
            (out / EXPORT_MARK).unlink()
        (out / "tracks.parquet").write_text("whole")

    monkeypatch.setattr("autopilothq.export.folder.fcntl.flock", ended)
    with pytest.raises(RunError, match="to be an empty folder"), ExportFolder(out):
        pass
    assert names(out) == ["tracks.parquet"]


# ---- a bucket --------------------------------------------------------------------------------------------------------

DAY = "segment-logs/autopilothq/0"


class Place:
    """A place in a new bucket, and what is there."""

    def __init__(self, s3: S3) -> None:
        self.url = f"{s3.bucket()}/out"
        self.fs = fsspec.filesystem("s3", use_listings_cache=False, **s3.storage_options)

    def names(self) -> list[str]:
        root = self.url.removeprefix("s3://")
        return sorted(path.removeprefix(f"{root}/") for path in self.fs.find(root))

    def export(self) -> ExportBucket:
        return ExportBucket(self.url, self.fs)

    def loaded(self, below: str = "") -> list[str]:
        return [file.url for file in list_files([self.url + below], fs=self.fs)]


@pytest.fixture
def place(s3: S3) -> Place:
    return Place(s3)


def test_a_bucket_has_all_files_or_a_mark_and_no_load_takes_what_is_marked(place: Place) -> None:
    with place.export() as files:
        files.append(f"{DAY}/export-0001.gz", b"a")
        files.append(f"{DAY}/export-0001.gz", b"b")
        assert place.names() == sorted(MARKS)
        files._upload(f"{DAY}/export-0001.gz")
        left_out: dict[str, str] = {}
        assert list(list_files([place.url], fs=place.fs, left_out=left_out)) == []
        assert left_out == {f"{place.url}/": "unfinished_export"}
        assert place.loaded("/segment-logs") == place.loaded("/segment-logs/autopilothq") == []
        assert files.publish() == 1
    assert place.names() == [f"{DAY}/export-0001.gz"]
    assert place.loaded() == [f"{place.url}/{DAY}/export-0001.gz"]
    assert place.fs.cat_file(f"{place.url}/{DAY}/export-0001.gz") == b"ab"
    with pytest.raises(RunError) as error, place.export():
        pass
    assert str(error.value) == (
        f"Expected {place.url} to be an empty folder, or a new one, but there is something in it.\n"
        "Name another folder, or move what is in it."
    )


def test_an_export_to_a_bucket_that_was_cut_off_starts_anew_and_the_earlier_one_ends(place: Place) -> None:
    with place.export() as first:
        first.append(f"{DAY}/export-0001.gz", b"half")
        first.append(f"{DAY}/export-0002.gz", b"more")
        first._upload(f"{DAY}/export-0002.gz")
        with place.export() as second:
            assert place.names() == sorted(MARKS)
            second.append(f"{DAY}/export-0001.gz", b"whole")
            second.create("tracks.parquet").close()
            with pytest.raises(BusyError) as error:
                first.publish()
            assert second.publish() == 2
    assert str(error.value) == (
        f"Another export has begun to write to {place.url}. Name another place, or wait for it."
    )
    assert place.names() == [f"{DAY}/export-0001.gz", "tracks.parquet"]
    assert place.fs.cat_file(f"{place.url}/{DAY}/export-0001.gz") == b"whole"


def test_a_bucket_that_is_not_there_is_said_before_anything_is_read(place: Place) -> None:
    with pytest.raises(RunError) as error, ExportBucket("s3://not-there-x/out", place.fs):
        pass
    assert str(error.value).splitlines() == [
        "Cannot write to s3://not-there-x/out: FileNotFoundError: The specified bucket does not exist",
        "Check that the bucket is there, and that these credentials may list, read, write and delete in it.",
    ]
