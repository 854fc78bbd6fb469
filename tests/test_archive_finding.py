"""Every layout of an archive is found, and files that are left out are named with the reason."""

import gzip
import os
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from dlt.common.exceptions import MissingDependencyException
from fsspec.implementations.memory import MemoryFileSystem

from archived import DAYS, FIRST, NAMED, NAMELESS, SECOND, THIRD, A, B, Refusing, all_lines, nameless, outcome, put
from autopilothq.errors import ArchiveError
from autopilothq.extras import install
from autopilothq.sources import file_systems
from autopilothq.sources.archive.batches import read_batches
from autopilothq.sources.archive.discover import list_files
from autopilothq.sources.archive.listing import is_unchanged
from listed import Counting, Objects


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """Returns a bucket with two sources of three days each, a loose file, and things that people leave there."""
    for source in ("aaaaaaaaaa", "bbbbbbbbbb"):
        for day in DAYS.values():
            put(tmp_path / "pre" / "segment-logs" / source / day / f"{day}.x.1.gz")
        put(tmp_path / "pre" / "segment-logs" / source / "dummy-object.txt")
    put(tmp_path / "pre" / "loose.jsonl")
    return tmp_path


def names(root: Path, *urls: str | Path, **options: Any) -> list[str]:
    return [os.path.relpath(file.url, root) for file in list_files([str(url) for url in urls], **options)]


def logs(source: str, *days: str) -> list[str]:
    return [f"pre/segment-logs/{source}/{day}/{day}.x.1.gz" for day in days]


LAYOUTS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("", {}, ["pre/loose.jsonl", *logs(A, *DAYS.values()), *logs(B, *DAYS.values())]),
    ("pre", {}, ["pre/loose.jsonl", *logs(A, *DAYS.values()), *logs(B, *DAYS.values())]),
    ("pre/segment-logs", {}, [*logs(A, *DAYS.values()), *logs(B, *DAYS.values())]),
    (f"pre/segment-logs/{A}", {}, logs(A, *DAYS.values())),
    (f"pre/segment-logs/{A}/{FIRST}", {}, logs(A, FIRST)),
    ("", {"since": date(2019, 3, 2)}, ["pre/loose.jsonl", *logs(A, SECOND, THIRD), *logs(B, SECOND, THIRD)]),
    ("", {"until": date(2019, 3, 2)}, ["pre/loose.jsonl", *logs(A, FIRST, SECOND), *logs(B, FIRST, SECOND)]),
    ("pre", {"since": date(2019, 3, 2), "until": date(2019, 3, 2), "source_id": B}, logs(B, SECOND)),
    ("pre/segment-logs", {"source_id": "cccccccccc"}, []),
    (f"pre/segment-logs/{A}/{FIRST}", {"since": date(2019, 3, 2)}, []),
    (f"pre/segment-logs/{A}/{FIRST}/{FIRST}.x.1.gz", {"since": date(2019, 3, 2)}, []),
    (f"pre/segment-logs/{A}", {"source_id": B}, []),
    ("pre/loose.jsonl", {"since": date(2019, 3, 2), "source_id": A}, ["pre/loose.jsonl"]),
    ("pre/segment-logs/*/*/*.gz", {"since": date(2019, 3, 3)}, [*logs(A, THIRD), *logs(B, THIRD)]),
    ("pre/segment-logs/*/*/*.gz", {"since": date(2020, 1, 1)}, []),
    ("pre/segment-logs/a*", {}, logs(A, *DAYS.values())),
    ("**/*.x.1.gz", {"source_id": A}, logs(A, *DAYS.values())),
    (f"pre/segment-logs/[ab]*/{FIRST}", {}, [*logs(A, FIRST), *logs(B, FIRST)]),
    ("pre/*", {}, ["pre/loose.jsonl", *logs(A, *DAYS.values()), *logs(B, *DAYS.values())]),
    ("pre/**", {"until": date(2019, 3, 1)}, ["pre/loose.jsonl", *logs(A, FIRST), *logs(B, FIRST)]),
]


@pytest.mark.parametrize(("url", "options", "expected"), LAYOUTS)
def test_finds_every_layout_from_each_folder_that_a_url_can_name(
    bucket: Path, url: str, options: dict[str, Any], expected: list[str]
) -> None:
    assert names(bucket, f"{bucket}/{url}", **options) == expected


@pytest.mark.parametrize("url", ["pre/segment-logs", "pre/segment-logs/*/*/*.gz"])
def test_other_days_and_sources_are_never_listed(bucket: Path, url: str) -> None:
    fs = Counting()
    day = date(2019, 3, 2)
    assert names(bucket, bucket / url, since=day, until=day, source_id=A, fs=fs) == logs(A, SECOND)
    assert fs.listed == ["segment-logs", A, SECOND]


def test_all_spellings_of_a_file_give_one_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(put(tmp_path / "in" / "x.gz"))
    monkeypatch.chdir(tmp_path)
    spellings = [
        "in/x.gz",
        "./in/x.gz",
        "in",
        "in/",
        "../" + tmp_path.name + "/in//x.gz",
        f"file://{path}",
        path,
        "in/*",
    ]
    assert [file.url for spelling in spellings for file in list_files([spelling])] == [path] * len(spellings)
    assert [file.url for file in list_files(spellings)] == [path]


def test_what_is_no_data_is_skipped(tmp_path: Path) -> None:
    day = tmp_path / "segment-logs" / A / FIRST
    for name in ("dummy-object.txt", "_SUCCESS", ".hidden.gz", ".git/x.gz", "without-suffix", "sub/x.bin", "x.gz/y.gz"):
        put(day / name)
        put(tmp_path / "loose" / name)
    for name in ("a.json", "b.NDJSON.GZ", "c.jsonl.zst", "d.txt", "e.csv.bak"):
        put(tmp_path / "loose" / name)
    put(day / "empty.gz", b"")
    put(tmp_path / "loose" / "empty.gz", b"")
    expected = ["loose/a.json", "loose/b.NDJSON.GZ", "loose/c.jsonl.zst", "loose/x.gz/y.gz"]
    inside = f"segment-logs/{A}/{FIRST}"
    expected += [f"{inside}/sub/x.bin", f"{inside}/without-suffix", f"{inside}/x.gz/y.gz"]
    assert names(tmp_path, tmp_path) == expected
    assert names(tmp_path, tmp_path / "loose" / "d.txt") == ["loose/d.txt"]
    assert names(tmp_path, f"{tmp_path}/loose/*.txt") == ["loose/d.txt"]
    assert names(tmp_path, tmp_path / "loose" / "empty.gz") == []
    assert names(tmp_path, tmp_path / "loose" / ".hidden.gz") == ["loose/.hidden.gz"]


def test_a_name_with_a_globs_characters_names_itself(tmp_path: Path) -> None:
    put(tmp_path / "x[1].gz")
    put(tmp_path / "x1.gz")
    assert names(tmp_path, tmp_path / "x[1].gz") == ["x[1].gz"]


def test_a_folder_without_files_gives_nothing(tmp_path: Path) -> None:
    assert list(list_files([str(tmp_path)])) == []
    assert list(list_files([])) == []


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    put(tmp_path / "real" / "x.gz")
    put(tmp_path / "elsewhere" / "y.gz", b"{}\n{}\n")
    root = tmp_path / "root"
    put(root / "a" / "z.gz")
    (root / "a" / "up").symlink_to(root)
    (root / "again").symlink_to(root / "a")
    (root / "real").symlink_to(tmp_path / "real")
    (root / "y.gz").symlink_to(tmp_path / "elsewhere" / "y.gz")
    files = list(list_files([str(root)]))
    assert [(os.path.relpath(file.url, root), file.size) for file in files] == [
        ("a/z.gz", 3),
        ("real/x.gz", 3),
        ("y.gz", 6),
    ]
    assert names(root, f"{root}/**/*.gz") == ["a/z.gz", "y.gz"]


def test_a_rewritten_file_has_another_version(tmp_path: Path) -> None:
    path = put(tmp_path / "x.gz", b"{}\n")
    os.utime(path, ns=(0, 1_500_000_000))
    [first] = list_files([str(path)])
    assert first[:3] == (str(path), "3-1500000000", 3)
    assert list(list_files([str(tmp_path)])) == [first]
    os.utime(path, ns=(0, 1_500_000_512))
    [touched] = list_files([str(path)])
    put(path, b"{ }\n")
    [grown] = list_files([str(path)])
    assert len({first.version, touched.version, grown.version}) == 3


ERRORS: list[tuple[str, str]] = [
    ("{root}/missing.gz", "Expected a file or a folder at {root}/missing.gz, but nothing is there.\nCheck the"),
    ("{root}/*.nothing", "Expected files that match {root}/*.nothing, but none does.\nCheck the pattern"),
    ("{root}/missing/*.gz", "Expected a file or a folder at {root}/missing, but nothing is there"),
    ("ftpx://a/b", "Expected a path, or a URL that begins with s3://, gs://, az:// or file://, but got ftpx://a/b"),
    ("http://127.0.0.1:1/a", "Expected a path, or a URL that begins with s3://, gs://, az:// or file://, but got"),
    ("https://x/*.gz", "Expected a path, or a URL that begins with s3://, gs://, az:// or file://, but got https://"),
    ("/dev/null", "Expected a file or a folder at /dev/null, but it is neither"),
]


@pytest.mark.parametrize(("url", "message"), ERRORS)
def test_a_url_that_names_nothing_says_so(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(ArchiveError) as error:
        list_files([url.format(root=tmp_path)])
    assert str(error.value).startswith(message.format(root=tmp_path))


@pytest.mark.parametrize(
    ("scheme", "extra"), [("s3", "s3"), ("s3a", "s3"), ("gs", "gcs"), ("gcs", "gcs"), ("abfss", "az"), ("sftp", "sftp")]
)
def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, scheme: str, extra: str) -> None:
    def missing(_: Any) -> None:
        raise MissingDependencyException("filesystem", [f"dlt[{scheme}]"])

    monkeypatch.setattr(file_systems, "resolve_configuration", lambda config, **_: config)
    monkeypatch.setattr(file_systems, "fsspec_from_config", missing)
    with pytest.raises(ArchiveError) as error:
        list_files([f"{scheme}://bucket"])
    assert str(error.value) == (
        f"{scheme}://bucket needs a package that is missing: dlt[{scheme}]\nInstall it: {install(extra)}"
    )


def test_a_missing_package_that_no_extra_has_is_named_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: Any, **__: Any) -> None:
        raise ImportError("Install huggingface_hub")

    monkeypatch.setattr(file_systems, "resolve_configuration", missing)
    with pytest.raises(ArchiveError) as error:
        list_files(["hf://bucket"])
    assert str(error.value) == (
        "hf://bucket needs a package that is missing: Install huggingface_hub\nInstall the package named above."
    )


def test_a_folder_that_cannot_be_listed_is_an_error(bucket: Path) -> None:
    fs = Refusing(SECOND, PermissionError(13, "Permission denied"))
    with pytest.raises(ArchiveError, match=f"list and read .*{SECOND}, but access was denied"):
        list_files([str(bucket)], fs=fs)
    assert names(bucket, bucket / "pre" / "loose.jsonl", fs=fs) == ["pre/loose.jsonl"]


def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "segment-logs").symlink_to(tmp_path / "unmounted")
    put(tmp_path / "x.gz")
    for url in ("", "/*", "/**", "/**/*.gz", "/*/*.gz"):
        with pytest.raises(ArchiveError, match=r"behind the link .*segment-logs: No such file or directory"):
            list_files([f"{tmp_path}{url}"])
    assert names(tmp_path, f"{tmp_path}/*.gz") == ["x.gz"]
    (tmp_path / "segment-logs").rename(tmp_path / ".hidden")
    assert names(tmp_path, tmp_path) == ["x.gz"]


def test_a_path_that_is_too_long_to_be_opened_costs_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "x.gz")
    monkeypatch.chdir(tmp_path)
    deep = tmp_path
    while len(str(deep / "y.gz")) < 4096:
        deep /= "a" * 250
        put(Path("a" * 250, "y.gz"))
        os.chdir("a" * 250)
    found = list_files([str(tmp_path)], keep_broken=True)
    assert found[-1].url == f"{tmp_path}/x.gz"
    (reject,) = (reject for batch in read_batches(found) for reject in batch.rejects)
    assert len(found[reject.file].path) >= 4096
    assert reject.message.endswith("at byte 0: OSError: File name too long.")
    with pytest.raises(ArchiveError, match=r"to open .*: File name too long\.\nMove it to a folder"):
        list_files([str(tmp_path)])


def test_any_fsspec_file_system_will_do() -> None:
    fs = MemoryFileSystem()
    fs.pipe(f"/memory-bucket/segment-logs/{A}/{FIRST}/x.gz", gzip.compress(b"{}\n"))
    files = list(list_files(["memory://memory-bucket"], fs=fs))
    assert [file.url for file in files] == [f"memory://memory-bucket/segment-logs/{A}/{FIRST}/x.gz"]
    assert all_lines(files) == [(0, 1, b"{}\n")]


@pytest.mark.parametrize(
    ("url", "found", "left_out"),
    [
        (
            "",
            ["day/x.json", "full/y.json", "notes/z.json", "none/w.json"],
            {"day/": "folder_marker", "notes/": "trailing_slash", "none": "empty", "full": "unknown_suffix"},
        ),
        ("none", ["none/w.json"], {"none": "empty"}),
        ("full", ["full"], {}),
        ("full/", ["full", "full/y.json"], {}),
    ],
)
def test_an_object_can_have_the_name_of_a_folder(url: str, found: list[str], left_out: dict[str, str]) -> None:
    sizes = {"day/": 0, "notes/": 3, "none": 0, "full": 3}
    sizes |= dict.fromkeys(("day/x.json", "full/y.json", "notes/z.json", "none/w.json"), 3)
    seen: dict[str, str] = {}
    files = list_files([f"s3://b/{url}"], fs=Objects({f"b/{key}": size for key, size in sizes.items()}), left_out=seen)
    assert [file.url for file in files] == sorted(f"s3://b/{key}" for key in found)
    assert seen == {f"s3://b/{key}": why for key, why in left_out.items()}


@pytest.mark.parametrize(("path", "options", "keys"), NAMED)
def test_folders_without_a_name_are_found(path: str, options: dict[str, Any], keys: str) -> None:
    fs = MemoryFileSystem()
    for key, data in NAMELESS.items():
        fs.pipe(f"/nameless/{key}", data)
    files = list(list_files([f"memory://nameless{path}"], fs=fs, **options))
    assert [file.url for file in files] == nameless(keys, "memory://nameless")
    assert sorted(line[2] for line in all_lines(files)) == sorted(
        data for key, data in NAMELESS.items() if key[-4] in keys
    )


def test_a_name_that_is_not_utf8_is_text_in_the_books(tmp_path: Path) -> None:
    """Otherwise it would end each load, because no warehouse can store such a name."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.json")).write_bytes(b"1\n")
    files = list(list_files([str(tmp_path)]))
    assert [file.url for file in files] == [rf"{tmp_path}/caf\xe9/\xff.json"]
    assert outcome(files) == ([(0, 1, b"1\n")], [], [(0, None)])
    assert [is_unchanged(file) for file in files] == [True]
    (tmp_path / r"caf\xe9").mkdir()
    (tmp_path / r"caf\xe9" / r"\xff.json").write_bytes(b"2\n")
    with pytest.raises(
        ArchiveError, match=r"Expected files with different names, but two are named .*xff.json\.\nRename one"
    ):
        list_files([str(tmp_path)])


def test_what_is_left_out_is_named_with_the_reason(tmp_path: Path) -> None:
    day = tmp_path / "segment-logs" / A / FIRST
    for name in ("1", "dummy-object.txt", ".x.gz.forgetting", "sub/.git/y.gz"):
        put(day / name)
    put(day / "empty.gz", b"")
    put(tmp_path / "segment-logs" / B / SECOND / "2")
    put(tmp_path / "segment-logs" / A / SECOND / "3")
    for name in ("a.txt", "_SUCCESS", ".b.gz", "c.gz", "d.csv"):
        put(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.gz")

    def left_out(*urls: str, **options: Any) -> dict[str, str]:
        seen: dict[str, str] = {}
        list(list_files([f"{tmp_path}{url}" for url in urls], left_out=seen, **options))
        return {url.removeprefix(f"{tmp_path}/"): why for url, why in seen.items()}

    logs = f"segment-logs/{A}/{FIRST}"
    inside = {
        f"{logs}/dummy-object.txt": "not_data",
        f"{logs}/.x.gz.forgetting": "hidden",
        f"{logs}/sub/.git/": "hidden",
        f"{logs}/empty.gz": "empty",
    }
    hidden = {"_SUCCESS": "not_data", ".b.gz": "hidden", "pipe.gz": "not_a_file"}
    other = {"a.txt": "unknown_suffix", "d.csv": "unknown_suffix"}
    assert left_out("") == inside | hidden | other
    assert left_out("", "/a.txt") == inside | hidden | {"d.csv": "unknown_suffix"}
    days = {f"segment-logs/{A}/{SECOND}/": "other_days", f"segment-logs/{B}/{SECOND}/": "other_days"}
    assert left_out("", until=date(2019, 3, 1)) == inside | hidden | other | days
    others = dict.fromkeys(("a.txt", "c.gz", "d.csv", f"segment-logs/{B}/"), "other_source")
    assert left_out("", source_id=A) == inside | hidden | others
    # With a glob, only files that match it are named.
    assert left_out("/*.gz") == {".b.gz": "hidden", "pipe.gz": "not_a_file"}
    assert left_out("/segment-logs/**") == inside
    assert left_out("/segment-logs/*/*/*", since=date(2019, 3, 2)) == {f"{logs}/": "other_days"}
    assert left_out("/c.gz", since=date(2019, 3, 2), source_id=A) == {}
    named = f"segment-logs/{B}/{SECOND}/2"
    assert left_out(f"/{named}", source_id=A) == {named: "other_source"}
    assert left_out(f"/{logs}/empty.gz", since=date(2019, 3, 2)) == {f"{logs}/empty.gz": "other_days"}
    (tmp_path / "linked").symlink_to(tmp_path / "segment-logs")
    assert left_out("/**/[1-9]") == {f"{logs}/sub/.git/": "hidden", "linked/": "linked_folder"}
