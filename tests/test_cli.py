"""The commands as a user sees them: exact texts and the exit status for given arguments."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import dlt
import duckdb
import pytest
from dlt.common.runtime.run_context import active

from autopilothq import archive, runner, sample
from autopilothq.cli import cli
from calling import GOOD, Call, Said, errors, on_terminal
from prepared import as_prepared, preparing
from shared_loads import command, isolation


class Loaded(NamedTuple):
    """The folder of a load of `archive.ndjson`, and what the load printed."""

    home: Path
    said: Said


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    with preparing(tmp_path_factory.mktemp("loaded")) as home:
        Path("archive.ndjson").write_text(GOOD + "oops\n" + GOOD)
        said = command("load", "archive", "archive.ndjson")
    return Loaded(home, said)


@pytest.fixture
def loaded(prepared: Loaded) -> Iterator[Said]:
    """Works in a copy of that folder; returns what the load printed."""
    with as_prepared(prepared.home):
        yield prepared.said


def test_loads_an_archive_into_a_file_here(loaded: Said) -> None:
    said = loaded
    assert said.status == 0
    assert said.out.splitlines()[:9] == [
        "table         rows",
        "_audit           1",
        "_rejects         1",
        "email_opened     1",
        "tracks           1",
        "",
        "3 lines, 1 stored, 1 duplicate, 1 rejected, 0 values discarded",
        "  1 not_json: not JSON",
        "    what is there instead: see _rejects.message",
    ]
    assert re.fullmatch(r"1 new file, 0 known, 0.0 MB, \d+\.\d s, \d+ events/s", said.out.splitlines()[9])
    with duckdb.connect("autopilot.duckdb") as con:
        assert con.execute("SELECT id, event FROM autopilothq.tracks").fetchall() == [("m1", "email_opened")]


CSV = "CSV, a table and not messages: see `adopt`"


class Selected(NamedTuple):
    """The output of three calls for a file of 3 lines: a dry run of some events, a load of them, and a load of all."""

    dry: Said
    files: list[str]
    """What the dry run left there."""
    some: Said
    file: Path
    first: list[tuple[str, str]]
    """What the load of some events left in `tracks`; `tracks` is what there was in the end."""
    all: Said
    tracks: list[tuple[str, str]]
    audit: list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory) -> Selected:
    with isolation(tmp_path_factory.mktemp("selected")):
        Path("archive.ndjson").write_text(GOOD + GOOD.replace("Opened", "Clicked").replace("m1", "m2") + "id,email\n")
        names = "email_opened, Emial Clicked, Email Bounced"
        dry = command("load", "archive", "archive.ndjson", "--events", names, "--dry-run")
        files = [path.name for path in Path().iterdir()]
        opened = ("--events", "email_opened", "--json", "--max-rejects", "1")
        some = command("load", "archive", "archive.ndjson", *opened)
        stored = "SELECT id, event FROM autopilothq.tracks ORDER BY 1"
        with duckdb.connect("autopilot.duckdb") as con:
            first = con.execute(stored).fetchall()
        every = command("load", "archive", "archive.ndjson", "--json", "--max-rejects", "0")
        with duckdb.connect("autopilot.duckdb") as con:
            tracks = con.execute(stored).fetchall()
            audit = con.execute("SELECT lines, stored, duplicates, rejected, skipped, tables FROM autopilothq._audit")
            file = Path("archive.ndjson").absolute()
            return Selected(dry, files, some, file, first, every, tracks, audit.fetchall())


def test_some_events(selected: Selected) -> None:
    """Other lines of the file are counted as skipped, and loaded when they are selected."""
    counts = ("lines", "stored", "rejected", "lines_skipped")
    dry = selected.dry.out.splitlines()
    assert "3 lines, 1 stored, 0 duplicates, 1 rejected, 1 skipped, 0 values discarded" in dry
    assert dry[dry.index("  1 not_json: not JSON") + 1] == f"    1 likely {CSV}"
    [told] = errors(selected.dry)
    assert told == (
        "Warning: The name emial_clicked selects nothing: no event that was read has it, and neither Autopilot's events"
        " nor the dataset's tables do (did you mean email_clicked?)."
    )
    assert [[json.loads(said.out)[count] for count in counts] for said in (selected.some, selected.all)] == [
        [3, 1, 1, 1],
        [3, 1, 1, 0],
    ]
    assert selected.tracks == [("m1", "email_opened"), ("m2", "email_clicked")]
    assert selected.audit == [(3, 2, 0, 1, 0, None)]


def test_json_has_every_count(selected: Selected) -> None:
    assert selected.some.status == 0
    assert selected.first == [("m1", "email_opened")]
    result = json.loads(selected.some.out)
    del result["seconds"]
    size = selected.file.stat().st_size
    assert result == {
        "files": 1,
        "files_known": 0,
        "files_done": 1,
        "bytes": size,
        "bytes_done": size,
        "lines": 3,
        "lines_skipped": 1,
        "stored": 1,
        "duplicates": 0,
        "rejected": 1,
        "mended": 0,
        "rejects": {"not_json": 1},
        "reject_causes": {CSV: 1},
        "discards": 0,
        "beyond_limits": {},
        "rows": {"email_opened": 1, "tracks": 1, "_rejects": 1, "_audit": 1},
        "unfinished": {},
        "failed": {},
        "skipped": {},
        "skipped_examples": {},
        "contacts": 0,
        "contacts_total": None,
        "people": 0,
        "people_total": None,
        "people_found_by": None,
        "cut_off": None,
        "warnings": [],
        "into": {
            "destination": "duckdb",
            "location": f"{selected.file.parent}/autopilot.duckdb",
            "dataset": "autopilothq",
            "pipeline": "autopilot_events",
        },
        "dry_run": False,
    }


def test_a_dry_run_loads_nothing(selected: Selected) -> None:
    assert (selected.dry.status, selected.dry.out.splitlines()[0].strip()) == (0, "would load")
    assert selected.files == ["archive.ndjson"]


@pytest.mark.usefixtures("loaded")
def test_a_second_run_finds_nothing_new(call: Call) -> None:
    assert call("load", "archive", "archive.ndjson").out.startswith(
        "0 lines, 0 stored, 0 duplicates, 0 rejected, 0 values discarded\n0 new files, 1 known,"
    )

    # Rows that a killed load stored twice are removed by a load, which holds the lock, but not by a dry run.
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("INSERT INTO autopilothq.tracks FROM autopilothq.tracks")
    assert call("load", "archive", "archive.ndjson", "--dry-run").status == 0
    with duckdb.connect("autopilot.duckdb") as con:
        assert con.execute("SELECT count(*) FROM autopilothq.tracks").fetchone() == (2,)


@pytest.mark.usefixtures("loaded")
def test_a_package_that_can_never_load_is_set_aside(call: Call) -> None:
    Path("more.ndjson").write_text(GOOD.replace("m1", "m2"))
    into = runner.pipeline()
    into.extract(archive("more.ndjson"))
    into.normalize()
    [file] = Path(into.working_dir).glob("load/normalized/*/new_jobs/tracks.*")
    file.write_bytes(b"garbage")
    said = call("load", "archive", "more.ndjson")
    assert said.status == 0
    [warning] = [line for line in said.err.splitlines() if line.startswith("Warning: ")]
    text = (
        "What an earlier run left cannot be loaded, and is set aside; this run reads it again. The load step failed: "
    )
    assert warning.startswith(f"Warning: {text}")
    assert "Parquet file size is 7 bytes" in warning
    with duckdb.connect("autopilot.duckdb") as con:
        assert con.execute("SELECT id FROM autopilothq.tracks ORDER BY id").fetchall() == [("m1",), ("m2",)]
    assert call("load", "archive", "more.ndjson").out.startswith("0 lines")


def test_max_rejects(selected: Selected) -> None:
    assert selected.all.status == 3
    assert len(selected.tracks) == 2


def test_everything_can_be_set_in_the_configuration(call: Call) -> None:
    Path("archive.ndjson").write_text(GOOD)
    Path(".dlt").mkdir()
    Path(".dlt/config.toml").write_text(
        'destination_type = "duckdb"\ndataset_name = "mail"\n'
        '[sources.autopilothq]\narchive_url = "archive.ndjson"\n'
        '[destination.duckdb]\ncredentials = "elsewhere.duckdb"\n'
    )
    active().reload()
    assert call("load", "archive").status == 0
    with duckdb.connect("elsewhere.duckdb") as con:
        assert con.execute("SELECT id FROM mail.email_opened").fetchall() == [("m1",)]


@pytest.mark.parametrize(
    ("settings", "words", "counts"),
    [
        ('since = "2019-03-05"', [], "1 line, 1 stored, 0 duplicates, 0 rejected"),
        ('since = "2019-03-05"', ["--since", "2019-03-04"], "2 lines, 2 stored, 0 duplicates, 0 rejected"),
        ('until = "2019-03-04"', [], "1 line, 1 stored, 0 duplicates, 0 rejected"),
        ('since = ""\nuntil = " "', [], "2 lines, 2 stored, 0 duplicates, 0 rejected"),
        ('source_id = "other"', [], "0 lines, 0 stored, 0 duplicates, 0 rejected"),
        ('events = "Email Clicked"', [], "2 lines, 0 stored, 0 duplicates, 0 rejected, 2 skipped"),
    ],
)
def test_what_to_read_from_the_configuration(call: Call, settings: str, words: list[str], counts: str) -> None:
    for day in ("1551657600000", "1551744000000"):
        folder = Path("logs/segment-logs/shop") / day
        folder.mkdir(parents=True)
        (folder / "1.ndjson").write_text(GOOD.replace("m1", day))
    Path(".dlt").mkdir()
    Path(".dlt/config.toml").write_text(f'[sources.autopilothq]\narchive_url = "logs"\n{settings}\n')
    active().reload()
    said = call("load", "archive", "--dry-run", *words)
    assert said.status == 0
    assert f"{counts}, 0 values discarded" in said.out.splitlines()


@pytest.mark.usefixtures("loaded")
def test_an_unfinished_load_elsewhere_is_not_mixed_up(call: Call) -> None:
    pipeline = dlt.attach(
        "autopilot_events", destination=dlt.destinations.duckdb("autopilot.duckdb"), dataset_name="autopilothq"
    )
    Path("b.ndjson").write_text(GOOD.replace("m1", "m2"))
    pipeline.extract(archive("b.ndjson"))
    assert call("load", "archive", "archive.ndjson", "--credentials", "two.duckdb").status == 0
    with duckdb.connect("two.duckdb") as con:
        assert con.execute("SELECT id FROM autopilothq.tracks").fetchall() == [("m1",)]
    assert pipeline.has_pending_data
    # Only a pipeline that is given another target could mix them up, and that is refused.
    other = dlt.pipeline(
        "autopilot_events", destination=dlt.destinations.duckdb("two.duckdb"), dataset_name="autopilothq"
    )
    with pytest.raises(
        runner.RunError,
        match=r"An unfinished load into .*autopilot\.duckdb.* waits, but this run goes to .*two\.duckdb",
    ):
        runner.run(other, archive("archive.ndjson"))
    said = call("load", "archive", "archive.ndjson")
    assert said.status == 0
    assert said.out.startswith("0 lines, 0 stored, ")
    assert said.out.endswith("\n1 earlier load that waited is complete now, whose rows are not counted here\n")
    with duckdb.connect("autopilot.duckdb") as con:
        assert con.execute("SELECT id FROM autopilothq.tracks ORDER BY id").fetchall() == [("m1",), ("m2",)]
    assert "waited" not in call("load", "archive", "archive.ndjson").out


def test_sample_is_the_same_for_a_seed(call: Call) -> None:
    assert call("sample", "one", "--events", "500", "--seed", "7").out == "500 messages in 13 files below one\n"
    call("sample", "two", "--events", "500", "--seed", "7")
    call("sample", "three", "--events", "500", "--seed", "8")
    one, two, three = (
        [file.read_bytes() for file in sorted(Path(root).rglob("*.gz"))] for root in ("one", "two", "three")
    )
    assert one == two != three


def test_a_terminal_sees_a_bar() -> None:
    sample.write("archive", events=500)
    said = on_terminal("load", "archive", "archive")
    assert said.status == 0, said.err
    assert "reading" in said.err
    assert "14/14 files" in said.err
    assert "500 lines" in said.out


def test_what_is_left_out_and_nothing_found_is_told(call: Call) -> None:
    logs = Path("logs/segment-logs")
    for path in ("AbC/1551398400000/1.gz", "AbC/1551484800000/2.gz", "XyZ/1551571200000/3.gz", "XyZ/dummy-object.txt"):
        (logs / path).parent.mkdir(parents=True, exist_ok=True)
        (logs / path).write_text(GOOD)
    for name in "abcd":
        Path(f"logs/{name}.txt").write_text("x")
    Path("empty").mkdir()
    here = Path.cwd()
    texts = [f"{here}/logs/{name}.txt" for name in "abc"]
    suffixes = "outside of day folders and without a suffix of .gz, .json, .jsonl, .ndjson, .zst"
    unread = f"Warning: Not read ({suffixes}): {', '.join(texts)} and 1 more."

    said = call("load", "archive", "logs", "--until", "2019-03-02")
    assert (said.status, errors(said)) == (0, [unread])
    assert said.out.splitlines()[-5:-2] == [
        f"  1 left out (outside of the requested days): {here}/{logs}/XyZ/1551571200000/",
        f"  1 left out (write tests and job markers): {here}/{logs}/XyZ/dummy-object.txt",
        f"  4 left out ({suffixes}): {', '.join(texts)}, …",
    ]
    # Known files count as found.
    said = call("load", "archive", "logs", "--until", "2019-03-02", "--fail-if-empty", "--json")
    result = json.loads(said.out)
    assert (said.status, errors(said)) == (0, [unread])
    assert (result["files"], result["files_known"], result["warnings"]) == (0, 2, [unread.removeprefix("Warning: ")])
    assert result["skipped"] == {"other_days": 1, "not_data": 1, "unknown_suffix": 4}
    assert result["skipped_examples"]["unknown_suffix"] == texts

    found_in_vain = {
        ("empty",): "at empty. What is there: no file at all.",
        ("logs/segment-logs", "--source-id", "nobody", "--since", "2019-03-01"): (
            "at logs/segment-logs (source nobody, from 2019-03-01)."
            " What is there: sources AbC, XyZ; 2 not of the requested source."
        ),
        ("logs/segment-logs", "empty", "--since", "2030-01-01", "--until", "2030-01-31"): (
            "at logs/segment-logs, empty (from 2030-01-01, to 2030-01-31). What is there: 3 days from 2019-03-01 to"
            " 2019-03-03; sources AbC, XyZ; 3 outside of the requested days; 1 write test or job marker."
        ),
    }
    for words, text in found_in_vain.items():
        said = call("load", "archive", *words, "--dry-run")
        assert (said.status, errors(said)) == (0, [f"Warning: Nothing to load was found {text}"])
        said = call("load", "archive", *words, "--dry-run", "--fail-if-empty")
        assert (said.status, errors(said)) == (
            3,
            [
                f"Warning: Nothing to load was found {text}",
                "Error: No file was found, and --fail-if-empty was given.",
            ],
        )


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "logs/*.gz",
            ["Error: Expected files that match logs/*.gz, but none does.", "Check the pattern, or name a folder."],
        ),
        (
            "logs",
            [
                "Error: Expected a file or a folder behind the link {here}/logs/broken: No such file or directory.",
                "Repair or remove the link.",
            ],
        ),
        (
            "none//logs",
            ["Error: Expected a file or a folder at none//logs, but nothing is there.", "Check the path's spelling."],
        ),
    ],
)
def test_what_cannot_be_listed_is_said_in_two_lines(call: Call, url: str, message: list[str]) -> None:
    Path("logs").mkdir()
    Path("logs/broken").symlink_to("unmounted")
    said = call("load", "archive", url)
    assert (said.status, errors(said)) == (1, [text.format(here=Path.cwd()) for text in message])


def test_a_group_without_a_command_shows_its_help(call: Call) -> None:
    for words in ((), ("load",), ("models",), ("contacts",)):
        assert call(*words) == (2, "", call(*words, "--help").out)


def test_lists_of_commands_are_whole_on_a_terminal_of_80_columns(call: Call) -> None:
    def lists(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[str]:
        yield from call(*words, "--help").out.partition("Commands:\n")[2].splitlines()
        for name, below in group.commands.items():
            if isinstance(below, click.Group):
                yield from lists(below, (*words, name))

    found = list(lists(cli))
    assert len(found) > 30
    assert [line for line in found if line.endswith("...") or len(line) > 80] == []
