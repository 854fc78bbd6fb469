"""Files of the program are readable only by its user, also after a kill, whatever the umask is."""

import errno
import gzip
import json
import os
import resource
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import dlt
import duckdb
import pytest

import autopilothq
import forked
from autopilothq import compaction, disk, private
from autopilothq.destination.delivery_log import KILL_POINT_DELIVERIES_ADDED
from autopilothq.errors import FolderNotOwned, RunError
from autopilothq.projection.parse import KILL_POINT_LINES_PARSED
from autopilothq.receive import files
from autopilothq.sources.archive import list_files
from autopilothq.sources.archive.remove_lines import remove_lines
from autopilothq.sources.spool import KILL_POINT_PAGE_STORED
from autopilothq.warehouses.duckdb import direct
from calling import Call, errors
from fake_autopilot import FakeAutopilot, FakeProfiles
from faults import killed_sending
from faults.killed_sending import Plan
from faults.loads import line, track
from faults.test_killed import clean_environment

USUAL = 0o022
"""The umask of most shells: everybody may read."""
NEVER = 3600.0
NOBODY = 65534
NOT_OWN = (
    "Error: Expected {folder} to be a folder of this user, because everybody may write to {shared}, but it"
    " belongs to user {owner}."
)
NAME_ANOTHER = "Name another folder for dlt's data: DLT_DATA_DIR=/path/to/folder"
READ = (KILL_POINT_LINES_PARSED, "after", 1)
SPOOLED = (KILL_POINT_PAGE_STORED, "after", 2)
LOAD = ["load", "archive", "archive.json.gz"]


ELSEWHERE = OSError(errno.EACCES, "Permission denied", "/else/1.gz")
UNNAMED = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "Cannot write to out: No space left on device."),
        (OSError(errno.EIO, "Input/output error"), "Cannot write to out: Input/output error."),
        (OSError(errno.EACCES, "Permission denied", "out/a/1.gz"), "Cannot write to out: Permission denied."),
        (OSError(errno.ENOENT, "No such file or directory", b"out"), "Cannot write to out: No such file or directory."),
        (ELSEWHERE, str(ELSEWHERE)),
        (UNNAMED, str(UNNAMED)),
    ],
)
def test_an_error_of_the_disk_names_the_folder_that_is_written_to(raised: OSError, told: str) -> None:
    with pytest.raises((RunError, OSError)) as caught, private.writing(Path("out")):
        raise raised
    assert (str(caught.value), caught.type) == (told, RunError if "out" in told else type(raised))


def _rewritten(path: Path) -> None:
    with disk.rewriting(path) as file:
        file.write(b"{}")


def _without_lines(path: Path) -> None:
    path.write_bytes(b"{}\n{}\n")
    [file] = list_files([str(path)])
    remove_lines(file, [1])


def _compressed(path: Path) -> None:
    files.compress(path.with_name("messages"), path)


def _joined(path: Path) -> None:
    compaction._join([path.with_name("messages")], path)


@pytest.mark.parametrize("write", [_rewritten, _without_lines, _compressed, _joined])
def test_an_error_of_a_full_disk_names_the_file_that_is_written(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "messages").write_bytes(b"{}\n")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write(tmp_path / "1.json")
    assert Path(caught.value.filename).name in ("1.json", ".1.json.forgetting")
    assert Path(caught.value.filename).parent == tmp_path


def test_what_is_made_is_private_under_any_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared"
    before = os.umask(0)
    try:
        shared.mkdir()
        made = private.folder(shared / "a" / "b")
        (made / "old").write_text("a longer text")
        (made / "link").symlink_to("old")
        for name in ("new", "old", "link"):
            with private.opened(made / name, "w") as file:
                file.write(name)
        with private.opened(made / "bytes") as file:
            file.write(b"\x00")
        private.folder(shared)
        (made / "c").mkdir()
        private.restrict(made / "c")
        private.restrict(made / "missing")
        # Does not depend on the temporary folder, which may be on another disk.
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
        private.database(made / "new.duckdb")
    finally:
        os.umask(before)
    assert (stat.S_IMODE(shared.stat().st_mode), modes(shared)) == (
        0o777,
        {"a": "drwx------", "a/b": "drwx------", "a/b/c": "drwx------"}
        | {f"a/b/{name}": "-rw-------" for name in ("new", "old", "link", "bytes", "new.duckdb")},
    )
    assert [(made / name).read_text() for name in ("new", "old", "link", "bytes")] == ["new", "old", "link", "\0"]
    # Another process creates the file again between the deletion and the opening.
    monkeypatch.setattr(os, "unlink", lambda _: None)
    with pytest.raises(FileExistsError):
        private.opened(made / "old")


class Kill(NamedTuple):
    """A call, where it is killed, and some of the files that exist then."""

    words: list[str]
    point: tuple[str, str, int] | float
    left: list[str]


KILLS = {
    "done": Kill(LOAD, NEVER, ["autopilot.duckdb", "autopilot.duckdb.lock", "dlt/*/trace.pickle", "dlt/*.place"]),
    "handed over": Kill(LOAD, ("dlt.pipeline.pipeline:Pipeline.normalize", "before", 1), ["*/extracted/*.parquet"]),
    "stored": Kill(
        LOAD,
        ("dlt.destinations.job_client_impl:SqlJobClientBase._execute_schema_update_sql", "after", 1),
        ["autopilot.duckdb.wal", "*/new_jobs/*.parquet"],
    ),
    "dry": Kill([*LOAD, "--dry-run"], READ, ["tmp/*/autopilot_events/autopilothq/*/waiting"]),
    "pages": Kill(["load", "api"], SPOOLED, ["*/autopilothq-scan/contacts/00000002.gz", "*/contacts/scan.json"]),
    "people": Kill(["load", "profiles"], SPOOLED, ["*/autopilothq-people/*/00000002.gz"]),
    "sent": Kill(
        ["send", "messages", "identifies.ndjson"],
        (KILL_POINT_DELIVERIES_ADDED, "after", 1),
        ["autopilot.duckdb.send.lock", "autopilot.duckdb*"],
    ),
    "sample": Kill(["sample", "made", "--events", "10"], NEVER, ["made/segment-logs/*.gz"]),
}  # fmt: skip
GIVEN = {"archive.json.gz", "identifies.ndjson", "status", "tmp"}
"""Files that the test itself makes."""


def modes(folder: Path) -> dict[str, str]:
    """Returns everything below a folder with its type and mode, such as `{"dlt": "drwx------"}`."""
    return {str(path.relative_to(folder)): stat.filemode(path.lstat().st_mode) for path in sorted(folder.rglob("*"))}


def open_to_others(folder: Path) -> dict[str, str]:
    """Returns what other users could read if they can enter the folder."""
    found = modes(folder).items()
    return {path: mode for path, mode in found if mode not in ("drwx------", "-rw-------") and path not in GIVEN}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yields the folder that has one for each call, which ran there and was killed."""
    house = tmp_path_factory.mktemp("private")
    with FakeAutopilot(contacts=350) as account, FakeProfiles() as profiles:
        settings = {
            "SOURCES__AUTOPILOTHQ__BASE_URL": account.base_url,
            "SOURCES__AUTOPILOTHQ__API_KEY": account.key,
            "SOURCES__AUTOPILOTHQ__REQUESTS_PER_SECOND": "10000",
            "SOURCES__AUTOPILOTHQ__PROFILES__TOKEN": profiles.token,
            "SOURCES__AUTOPILOTHQ__PROFILES__BASE_URL": profiles.base_url,
            "SOURCES__AUTOPILOTHQ__PROFILES__SPACE": profiles.space,
            "DESTINATION__AUTOPILOTHQ__BASE_URL": account.base_url,
            "DESTINATION__AUTOPILOTHQ__API_KEY": account.key,
        }
        plans = []
        for name, kill in KILLS.items():
            folder = house / name
            (folder / "tmp").mkdir(parents=True)
            (folder / "archive.json.gz").write_bytes(gzip.compress(b"".join(line(track(n)) for n in range(20))))
            (folder / "identifies.ndjson").write_bytes(
                line({"type": "identify", "messageId": "i", "traits": {"email": "ada@example.com"}})
            )
            own = settings | {"DLT_DATA_DIR": str(folder / "dlt"), "TMPDIR": str(folder / "tmp")}
            plans.append(Plan(str(folder), kill.words, own, kill.point))
        (house / "plans.json").write_text(json.dumps(plans))
        done = forked.run(
            killed_sending.__file__, str(house / "plans.json"), cwd=house, env=clean_environment(), umask=USUAL
        )
        assert done.returncode == 0, done.stderr
        yield house


@pytest.mark.parametrize("room", [0, 4096, 8192])
def test_a_database_that_has_no_room_leaves_no_part_of_a_file(room: int) -> None:
    """DuckDB would refuse an incomplete file in each later run, also when there is room again."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limit[1]))
    try:
        with pytest.raises(duckdb.IOException, match="Could not write file"):
            private.database(Path("new.duckdb"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list(Path().iterdir()) == []
    private.database(Path("new.duckdb"))
    duckdb.connect("new.duckdb").close()


@pytest.mark.parametrize(("number", "raises"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EPERM, False)])
def test_where_no_file_can_be_linked_duckdb_makes_its_own_unless_there_is_no_room(
    number: int, raises: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(OSError, match=os.strerror(number)) if raises else nullcontext():
        private.database(Path("new.duckdb"))
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("name", KILLS)
def test_a_call_leaves_nothing_that_others_can_read(name: str, house: Path) -> None:
    folder = house / name
    assert int((folder / "status").read_text()) == (0 if KILLS[name].point == NEVER else -signal.SIGKILL)
    listing = modes(folder)
    assert [left for left in KILLS[name].left if not any(fnmatch(path, left) for path in listing)] == []
    assert open_to_others(folder) == {}


@pytest.fixture
def usual_umask() -> Iterator[None]:
    before = os.umask(USUAL)
    yield
    assert os.umask(before) == USUAL  # a library must not change the process's umask


def load(messages: list[dict[str, object]], place: str = "autopilot.duckdb") -> dlt.Pipeline:
    """Loads as a user's script would; returns the pipeline."""
    Path("archive").mkdir(exist_ok=True)
    Path(f"archive/{messages[0]['messageId']}.json").write_bytes(b"".join(map(line, messages)))
    pipeline = dlt.pipeline("mine", destination=direct(place), dataset_name="autopilothq")
    pipeline.run(autopilothq.archive("archive"))
    return pipeline


def test_as_a_library_its_folder_and_its_database_are_private(usual_umask: None) -> None:  # noqa: ARG001
    pipeline = load([track(1)])
    folder = Path(pipeline.working_dir)
    assert stat.filemode(folder.stat().st_mode) == "drwx------"  # dlt's own files in it follow the umask
    assert {stat.filemode(path.stat().st_mode) for path in (folder / "autopilothq").iterdir()} == {"drwx------"}
    assert {path: mode for path, mode in modes(Path()).items() if "duckdb" in path} == {
        "autopilot.duckdb": "-rw-------"
    }
    folder.chmod(0o750)
    Path("autopilot.duckdb").chmod(0o640)
    load([track(2)])
    # Access that a user granted stays.
    assert [stat.filemode(path.stat().st_mode) for path in (folder, Path("autopilot.duckdb"))] == [
        "drwxr-x---", "-rw-r-----",
    ]  # fmt: skip
    with duckdb.connect("autopilot.duckdb") as con:
        assert con.execute("SELECT id FROM autopilothq.tracks ORDER BY 1").fetchall() == [("m-1",), ("m-2",)]


@pytest.mark.parametrize(
    ("database", "lock"), [(0o600, 0o600), (0o640, 0o600), (0o660, 0o660), (0o664, 0o660), (0o666, 0o666)]
)
def test_all_users_who_may_write_a_database_may_take_its_lock(database: int, lock: int, tmp_path: Path) -> None:
    guarded, path = tmp_path / "autopilot.duckdb", tmp_path / "autopilot.duckdb.lock"
    guarded.touch()
    group = NOBODY if os.geteuid() == 0 else max(os.getegid(), *os.getgroups())
    os.chown(guarded, -1, group)
    guarded.chmod(database)
    path.touch(0o600)
    private.share_lock(path, guarded)
    private.share_lock(path, tmp_path / "missing")
    assert (path.stat().st_mode & 0o777, guarded.stat().st_mode & 0o777) == (lock, database)
    assert (path.stat().st_uid, path.stat().st_gid) == (os.geteuid(), group)


def test_a_group_that_was_given_the_database_can_take_turns(call: Call) -> None:
    Path("a.json").write_bytes(line(track(1)))
    duckdb.connect("autopilot.duckdb").close()
    Path("autopilot.duckdb").chmod(0o660)
    assert call("load", "archive", "a.json").status == 0
    assert {path: mode for path, mode in modes(Path()).items() if "duckdb" in path} == {
        "autopilot.duckdb": "-rw-rw----",
        "autopilot.duckdb.lock": "-rw-rw----",
    }


def test_a_file_of_the_archive_keeps_its_mode_and_no_link_is_written_through(call: Call) -> None:
    """Others who may write to the archive's folder could place a link where the new file is created."""
    kept, gone = line(track(1, userId="bob")), line(track(2, userId="ada"))
    Path("archive").mkdir()
    Path("archive/a.json").write_bytes(kept + gone)
    Path("archive/a.json").chmod(0o640)
    Path("precious").write_bytes(b"precious")
    assert call("load", "archive", "archive").status == 0
    Path("archive/.a.json.forgetting").symlink_to(Path("precious").absolute())
    assert call("forget", "--user-id", "ada", "--archive", "archive").status == 0
    assert modes(Path("archive")) == {"a.json": "-rw-r-----"}
    assert (Path("archive/a.json").read_bytes(), Path("precious").read_bytes()) == (kept, b"precious")


@pytest.mark.parametrize("prepared", ["a folder", "a link"])
@pytest.mark.parametrize("words", [["load", "archive", "a.json"], ["status"]])
def test_a_folder_that_another_user_prepared_is_not_used(
    prepared: str, words: list[str], house: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dlt unpickles files in its folder, which would run that user's code."""
    Path("a.json").write_bytes(line(track(1)))
    if words == ["status"]:  # without a dataset, `status` would not use the folder
        shutil.copy(house / "done" / "autopilot.duckdb", ".")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    theirs = shared / "dlt"
    real = tmp_path / "elsewhere" if prepared == "a link" else theirs
    (real / "pipelines").mkdir(parents=True)
    if prepared == "a link":
        theirs.symlink_to(real)
    owner = NOBODY
    if os.geteuid() == 0:
        os.chown(theirs, NOBODY, NOBODY, follow_symlinks=False)
    else:
        owner = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    monkeypatch.setenv("DLT_DATA_DIR", str(theirs))
    said = call(*words)
    assert (said.status, said.out, errors(said)) == (
        1,
        "",
        [NOT_OWN.format(folder=theirs, shared=shared, owner=owner), NAME_ANOTHER],
    )
    assert modes(real) == {"pipelines": "drwxr-xr-x"}


def test_a_folder_that_is_yet_to_be_made_below_another_users_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o1777)
    (tmp_path / "dlt").mkdir()
    if os.geteuid() == 0:
        os.chown(tmp_path / "dlt", NOBODY, NOBODY)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(FolderNotOwned, match=f"^Expected {tmp_path}/dlt to be a folder of this user"):
        private.check_own(tmp_path / "dlt" / "pipelines" / "autopilot_events")
    if os.geteuid() == 0:  # in a folder that only root may write to, nobody else could have made it
        tmp_path.chmod(0o755)
        private.check_own(tmp_path / "dlt" / "pipelines" / "autopilot_events")


def test_own_folders_and_those_of_root_in_a_shared_one_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    tmp_path.chmod(0o1777)
    private.check_own(tmp_path / "own" / "not there yet" / "nor this")
    if os.geteuid() == 0:
        with monkeypatch.context() as patch:
            patch.setattr(os, "geteuid", lambda: NOBODY)
            private.check_own(tmp_path / "own")
    private.folder(tmp_path / "new" / "below")
    assert modes(tmp_path / "new") == {"below": "drwx------"}
    assert stat.filemode((tmp_path / "new").stat().st_mode) == "drwx------"
