"""The archive's source plans which files to read, and reports about the others, without a load."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from archived import outcome, put
from autopilothq.catalog import OTHER_LIMITS
from autopilothq.errors import ArchiveError, NotSupported
from autopilothq.segment.identity import HashedIds
from autopilothq.sources.archive import source
from autopilothq.sources.archive.discover import LEFT_OUT
from autopilothq.sources.archive.source import Archive, nothing_found
from autopilothq.sources.origin import LoadContext
from autopilothq.sources.report import LoadReport, no_progress

FIRST, SECOND = "1551398400000", "1551484800000"  # 2019-03-01 and 2019-03-02


def context(folder: Path, loaded: Sequence[tuple[str, str]] = ()) -> LoadContext:
    now = datetime(2019, 5, 1, tzinfo=UTC)
    return LoadContext(
        now, frozenset(), loaded, None, folder, 200, LoadReport(), no_progress, HashedIds(), OTHER_LIMITS, str
    )


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    root = tmp_path / "archive"
    for name in (f"AbC/{FIRST}/1.gz", f"AbC/{SECOND}/2.gz", f"XyZ/{FIRST}/3.gz", *(f"{n}.txt" for n in "edcba")):
        path = root / "segment-logs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}\n")
    return root / "segment-logs"


def planned(tmp_path: Path, *urls: Path, **options: Any) -> tuple[list[str], LoadReport]:
    here = context(tmp_path, options.pop("loaded", ()))
    files = Archive(tuple(map(str, urls)), **options).plan(here)
    return [Path(file.url).name for file in files], here.report


def test_files_are_planned_once_each_but_those_that_are_loaded(tmp_path: Path, archive: Path) -> None:
    names, report = planned(tmp_path, archive, archive / "AbC", archive / "a.txt")
    assert names == ["1.gz", "2.gz", "3.gz", "a.txt"]
    texts = [f"{archive}/{name}.txt" for name in "bcde"]
    assert (report.skipped, report.skipped_examples) == ({"unknown_suffix": 4}, {"unknown_suffix": texts[:3]})
    assert report.warnings == [f"Not read ({LEFT_OUT['unknown_suffix']}): {', '.join(texts[:3])} and 1 more."]
    known = [(file.url, file.version) for file in Archive((str(archive),)).plan(context(tmp_path))]
    names, report = planned(tmp_path, archive, loaded=known[:2])
    assert (names, report.files_known) == (["3.gz"], 2)


def test_a_link_that_leads_nowhere_is_a_file_that_cannot_be_read_and_keeps_no_other_from_being(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    put(folder / "1.gz", b"1\n")
    links = [folder / "2.gz", folder / "unmounted", folder / ".hidden", folder / "1551398400000"]
    for link in links:
        link.symlink_to("gone")
    every = [Archive((f"{folder}{url}",), since="2019-03-02") for url in ("", "/*", "/**", "/**/*.gz")]
    work, *others = [each.plan(context(tmp_path)) for each in every]
    assert [Path(file.url).name for file in work] == ["1.gz", "2.gz", "unmounted"]
    assert others == [work] * 3
    lines, rejects, ended = outcome(work)
    assert (lines, [reject.reason for reject in rejects]) == ([(0, 1, b"1\n")], ["truncated"] * 2)
    text = "Expected to read {} to its end, but reading failed at byte 0: FileNotFoundError: No such file or directory."
    assert ended == [(0, None), *((at, text.format(link)) for at, link in enumerate(links[:2], 1))]
    (folder / "1.gz").unlink()
    with pytest.raises(ArchiveError, match=r"behind the link .*/logs/2.gz: No such file or directory"):
        Archive((str(folder),), since="2019-03-02").plan(context(tmp_path))


@pytest.mark.parametrize(
    ("options", "names", "skipped"),
    [
        ({"since": "2019-03-02"}, ["2.gz"], {"other_days": 2, "unknown_suffix": 5}),
        ({"until": date(2019, 3, 1)}, ["1.gz", "3.gz"], {"other_days": 1, "unknown_suffix": 5}),
        ({"source_id": "XyZ"}, ["3.gz"], {"other_source": 6}),
    ],
)
def test_days_and_a_source_are_chosen(
    tmp_path: Path, archive: Path, options: dict[str, Any], names: list[str], skipped: dict[str, int]
) -> None:
    found, report = planned(tmp_path, archive, **options)
    assert (found, report.skipped) == (names, skipped)
    # Only files that may have been meant to be read cause a warning.
    assert len(report.warnings) == ("unknown_suffix" in skipped)


def test_where_nothing_is_found_what_is_there_is_told(tmp_path: Path, archive: Path) -> None:
    _, report = planned(tmp_path, archive, since="2020-01-01", until="2020-02-01", source_id="XyZ")
    assert report.warnings[-1] == (
        f"Nothing to load was found at {archive} (source XyZ, from 2020-01-01, to 2020-02-01)."
        " What is there: 1 day from 2019-03-01 to 2019-03-01; sources AbC, XyZ; 1 outside of the requested days;"
        " 6 not of the requested source."
    )
    many = [tmp_path / name for name in "abcdef"]
    for folder in many:
        folder.mkdir()
    _, report = planned(tmp_path, *many)
    assert report.warnings == [
        f"Nothing to load was found at {many[0]}, {many[1]}, {many[2]} and 3 more. What is there: no file at all."
    ]


@pytest.mark.parametrize(
    ("number", "there"),
    [
        (1, [
            "1 write test or job marker", "1 marker of a folder", "1 empty file",
            "1 hidden, because its name begins with a dot", "1 linked folder, which ** does not enter",
            "1 outside of day folders and without a suffix of .gz, .json, .jsonl, .ndjson, .zst",
            "1 device, pipe or socket", "1 object with content whose name ends with a slash",
            "1 of an export that has not ended, or was cut off",
        ]),
        (2, [
            "2 write tests and job markers", "2 markers of folders", "2 empty files",
            "2 hidden, because their names begin with a dot", "2 linked folders, which ** does not enter",
            "2 outside of day folders and without a suffix of .gz, .json, .jsonl, .ndjson, .zst",
            "2 devices, pipes or sockets", "2 objects with content whose name ends with a slash",
            "2 of exports that have not ended, or were cut off",
        ]),
    ],
)  # fmt: skip
def test_what_is_there_is_counted_in_words_that_agree(number: int, there: list[str]) -> None:
    left_out = {f"{why}{n}": why for why in LEFT_OUT for n in range(number) if not why.startswith("other_")}
    found = nothing_found("load", ["logs"], left_out)
    assert found == f"Nothing to load was found at logs. What is there: {'; '.join(there)}."


def test_where_exported_tables_are_loaded_as_an_archive_adopt_is_named() -> None:
    found = nothing_found("load", ["exp"], {"exp/users.parquet": "unknown_suffix"})
    assert found.endswith(".zst. Exported tables are adopted: autopilothq adopt FOLDER.")
    assert "adopt" not in nothing_found("forward", ["exp"], {"exp/users.parquet": "unknown_suffix"})


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, ""), (1, "n0"), (3, "n0, n1, n2"), (4, "n0, n1, n2 and 1 more"), (1_004, "n0, n1, n2 and 1,001 more")],
)
def test_some_names_stand_for_many(number: int, text: str) -> None:
    assert source._some([f"n{n}" for n in range(number)]) == text


EAST = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (None, None),
        ("2019-03-02", date(2019, 3, 2)),
        (date(2019, 3, 2), date(2019, 3, 2)),
        (datetime(2019, 3, 2, 1, tzinfo=EAST), date(2019, 3, 1)),
        (datetime(2019, 3, 2, 1, tzinfo=EAST).replace(tzinfo=None), date(2019, 3, 2)),
    ],
)
def test_a_day_is_one_in_utc(day: Any, expected: date | None) -> None:
    assert source.days_to_read(day, None) == (expected, None)
    assert source.days_to_read(None, day) == (None, expected)


@pytest.mark.parametrize("text", ["yesterday", "2019-03-01T12:00:00Z", "2019-02-30"])
def test_a_text_that_is_no_day_is_told(text: str) -> None:
    for name, days in (("since", (text, None)), ("until", ("2019-03-01", text))):
        with pytest.raises(NotSupported) as raised:
            source.days_to_read(*days)
        assert str(raised.value) == f"Expected a day such as 2019-03-01 for {name}, but got {text!r}."


def test_an_empty_day_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset options are often empty variables; a scheduler's interval must still apply then."""
    assert source.days_to_read("", " ") == (None, None)
    assert source.days_to_read("2019-03-01", "") == (date(2019, 3, 1), None)
    monkeypatch.setenv("DLT_INTERVAL_START", "2019-03-02T00:00:00Z")
    monkeypatch.setenv("DLT_INTERVAL_END", "2019-03-04T00:00:00Z")
    assert source.days_to_read("", "") == (date(2019, 3, 2), date(2019, 3, 3))


def test_a_source_whose_variable_nobody_set_is_told() -> None:
    for text in ("", " "):
        with pytest.raises(
            NotSupported, match="Expected the id of a Segment source for source_id, but got an empty text"
        ):
            source.archive("archive", source_id=text)


def test_days_in_the_wrong_order_are_told() -> None:
    with pytest.raises(NotSupported) as raised:
        source.days_to_read("2019-03-02", date(2019, 3, 1))
    assert str(raised.value) == (
        "Expected a day for until that is no earlier than since, 2019-03-02, but got 2019-03-01."
    )
    assert source.days_to_read("2019-03-02", "2019-03-02") == (date(2019, 3, 2), date(2019, 3, 2))


def test_a_day_beyond_the_calendar_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    first = datetime(1, 1, 1, tzinfo=EAST)
    with pytest.raises(NotSupported, match="Expected a day such as 2019-03-01 for until, but got '0001-01-01 00:00:00"):
        source.days_to_read("2019-03-01", first)
    for start, end in (
        ("0001-01-01T00:00:00+02:00", "2019-03-01T00:00:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("2019-03-01T00:00:00Z", "9999-12-31T23:59:59-12:00"),
    ):
        monkeypatch.setenv("DLT_INTERVAL_START", start)
        monkeypatch.setenv("DLT_INTERVAL_END", end)
        with pytest.raises(NotSupported) as raised:
            source.days_to_read(None, None)
        assert str(raised.value) == (
            "Expected an interval within the years 1 to 9999 (UTC) in DLT_INTERVAL_START and DLT_INTERVAL_END."
        )


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        (
            "yesterday",
            "a",
            (
                "times such as 2019-03-01T00:00:00Z in the environment, but got DLT_INTERVAL_START='yesterday' and"
                " DLT_INTERVAL_END='a'."
            ),
        ),
        (
            "2019-03-03",
            "2019-03-02",
            (
                "an interval that ends no earlier than it begins in DLT_INTERVAL_START and DLT_INTERVAL_END, but got"
                " 2019-03-03T00:00:00+00:00 and 2019-03-02T00:00:00+00:00."
            ),
        ),
    ],
)
def test_an_interval_that_cannot_be_is_told(monkeypatch: pytest.MonkeyPatch, start: str, end: str, text: str) -> None:
    monkeypatch.setenv("DLT_INTERVAL_START", start)
    monkeypatch.setenv("DLT_INTERVAL_END", end)
    with pytest.raises(NotSupported) as raised:
        source.days_to_read(None, None)
    assert str(raised.value) == f"Expected {text}"


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        ("2019-03-01T00:00:00Z", "2019-03-02T00:00:00Z", (1, 1)),
        ("2019-03-01T00:00:00Z", "2019-03-02T00:00:01Z", (1, 2)),
        ("2019-03-02T00:00:00+02:00", "2019-03-03T00:00:00+02:00", (1, 2)),
        ("2019-03-02T00:00:00Z", "2019-03-02T00:00:00Z", (2, 2)),
    ],
)
def test_a_schedulers_interval_is_days_unless_others_are_given(
    monkeypatch: pytest.MonkeyPatch, start: str, end: str, days: tuple[int, int]
) -> None:
    monkeypatch.setenv("DLT_INTERVAL_START", start)
    monkeypatch.setenv("DLT_INTERVAL_END", end)
    assert source.days_to_read(None, None) == (date(2019, 3, days[0]), date(2019, 3, days[1]))
    assert source.days_to_read("2019-01-01", None) == (date(2019, 1, 1), None)
    assert source.days_to_read(None, "2019-01-01") == (None, date(2019, 1, 1))
