"""Folders and files with unusual names work everywhere."""

import gzip
from pathlib import Path

import duckdb
import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs import PluggableRunContext
from dlt.destinations.impl.filesystem.configuration import FilesystemDestinationClientConfiguration

from autopilothq.display import visible
from autopilothq.errors import CannotMerge
from autopilothq.projection import engine
from autopilothq.sources.adopt.databases import DuckdbSource
from autopilothq.sources.engine.work_folder import work_folder
from autopilothq.warehouses import duckdb as direct
from autopilothq.warehouses.hints import check_lake_path
from autopilothq.warehouses.resolve import resolve_target
from autopilothq.warehouses.settings import TargetOptions
from calling import Call, errors
from faults.loads import content, line, track

ODD_NAMES = [
    "a[b]c", "[", "]", "[!a]", "[a-z]", "*", "**", "?", "%s", "it's", '"q"', "{}", "{a,b}", " ", "new\nline",
    "ünï 日本", "\\", "\\[x]", "\\*", "~", "$HOME", "a:b", "x=1", "%20", "#",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_file_is_named_where_a_glob_is_taken(name: str, tmp_path: Path) -> None:
    con = duckdb.connect()
    # Other files, which the name would match if it were a glob.
    for other in dict.fromkeys(["a", "b", "abc", "[a", "x", name]):
        folder = tmp_path / other
        folder.mkdir()
        con.sql("SELECT $other AS name", params={"other": other}).write_parquet(str(folder / other))
    file = engine.glob_literal(str(tmp_path / name / name))
    assert con.sql(f"SELECT name FROM read_parquet({file})").fetchall() == [(name,)]
    assert con.sql(f"SELECT name FROM read_parquet([{file}, {file}])").fetchall() == [(name,)] * 2
    # A folder `x=1` does not become a column either.
    found = con.sql(f"FROM {direct.parquet(str(tmp_path / name / name))}")
    assert (found.columns, found.fetchall()) == (["name"], [(name,)])


def test_a_load_between_oddly_named_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    odd = '%s %d it\'s "q" {} {a,b} x=1 new\nline ünï 日本 #~ $HOME'
    globs = f"{odd} [a-z] [!b] * **"
    work, archive = tmp_path / globs, tmp_path / f"{globs} ?"
    work.mkdir()
    archive.mkdir()
    monkeypatch.chdir(work)
    state = tmp_path / f"state {globs} ?\\ \\[x]"
    monkeypatch.setenv("DLT_DATA_DIR", str(state))
    Container()[PluggableRunContext].reload()
    for number in (1, 2):
        (archive / f"{number}.gz").write_bytes(gzip.compress(line(track(number, userId=f"u{number}"))))
        said = call("load", "archive", str(archive))
        assert (said.status, errors(said)) == (0, [])
    tables = content(work / "autopilot.duckdb")
    assert [row["id"] for row in tables["tracks"].dicts()] == ["m-1", "m-2"]
    assert [(row["file"], row["stored"]) for row in tables["_audit"].dicts()] == [
        (f"{archive}/{number}.gz", 1) for number in (1, 2)
    ]
    assert (state / "pipelines" / "autopilot_events").is_dir()


def test_where_duckdb_cannot_keep_a_file(call: Call) -> None:
    Path("a.ndjson").write_bytes(line(track(1)))
    said = call("load", "archive", "a.ndjson", "--credentials", "what?/is.duckdb")
    place = Path("what?/is.duckdb").absolute()
    assert said.status == 1
    assert errors(said) == [
        f"Error: DuckDB cannot keep a database at {place}: it takes what follows a ? for options.",
        "Rename that folder, or name a file elsewhere (--credentials /data/other.duckdb).",
    ]


def test_a_path_that_begins_with_a_tilde_is_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    """Also where no shell expands it: in quotes, settings and Python arguments."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    place = ("--credentials", "@~/place")
    (home / "place").write_text("~/events.duckdb")
    (home / "place").chmod(0o600)
    for words in (
        ("sample", "~/archive", "--events", "5"),
        ("load", "archive", "~/archive", *place),
        ("status", "--received", "file://~/archive", *place),
        ("export", "~/exported", "--format", "parquet", *place),
        ("export", "file://~/written", *place),
        ("report", "--output", "~/report.html", *place),
        ("adopt", "file://~/exported", "--dry-run"),
    ):
        assert (words, call(*words).status) == (words, 0)
    assert {path.name for path in home.iterdir()} == {
        "archive", "place", "events.duckdb", "events.duckdb.lock", "exported", "written", "report.html",
    }  # fmt: skip
    assert list(Path().iterdir()) == []
    assert DuckdbSource("duckdb:///~/events.duckdb").url == f"duckdb:///{home}/events.duckdb"
    with work_folder("file://~/work", "owner") as folder:
        assert folder.url.startswith(f"{home}/work/")
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", "duckdb:///~/other.duckdb")
    assert resolve_target().database == f"{home}/other.duckdb"
    for url in ("~/lake", "file://~/lake"):
        monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", url)
        for given in (None, url):
            assert resolve_target(TargetOptions("filesystem", given)).location == f"file://{home}/lake"


@pytest.mark.parametrize("sign", ["[", "]", "^", "|", "\\", "%2f", "\n", "\x7f"])
def test_a_lakes_folder_that_its_library_cannot_open(
    sign: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are refused, because a load would fail in that library, or never end."""
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__TABLE_FORMAT", "delta")
    (tmp_path / "a.ndjson").write_bytes(line(track(1)))
    into = ("--destination", "filesystem", "--credentials", str(place := tmp_path / f"a{sign}b"))
    why = (
        "Error: Expected a local folder for the lake without [ ] ^ | \\, control characters or a sign written like"
        f" %20 in its path, which the library of Delta tables cannot open, but got {visible(str(place))}."
    )
    said = call("load", "archive", str(tmp_path / "a.ndjson"), *into)
    assert (said.status, errors(said)) == (1, [why, "Name another folder."])
    (place / "autopilothq" / "tracks").mkdir(parents=True, exist_ok=True)
    (place / "autopilothq" / "init").touch()
    said = call("status", *into)  # somebody may have renamed a folder with data
    assert (said.status, errors(said)) == (1, [why, "Name another folder."])


@pytest.mark.parametrize(
    "folder",
    ["a#b", "a?b", "a%41", "a%2fb", "a]b", "a^b", "a|b", "a\\b", "a\tb", "a//b//", "/a", "..", "a/../b", "./a"],
)
def test_a_buckets_folder_that_the_library_of_lakes_cannot_open(folder: str) -> None:
    """They are refused: the library cuts the name at # or ?, and would mix all tables or write elsewhere."""
    config = FilesystemDestinationClientConfiguration(bucket_url=f"s3://lake/{folder}")
    with pytest.raises(CannotMerge) as refused:
        check_lake_path(config)
    assert str(refused.value) == (
        "Expected a bucket's folder for the lake without [ ] ^ | \\ # ?, control characters, empty parts, the parts ."
        " and .. or a sign written like %20 in its path, which the library of Delta tables cannot open, but got"
        f" {visible(config.bucket_url)}.\nName another folder."
    )


@pytest.mark.parametrize("folder", ["", "/", "//", "/a/", "/a///", "/a b", "/a'b=c+d&e:f", "/ä.b./..c", "/50%", "/{*}"])
def test_other_folders_of_a_bucket_are_lakes(folder: str) -> None:
    check_lake_path(FilesystemDestinationClientConfiguration(bucket_url=f"s3://lake{folder}"))
