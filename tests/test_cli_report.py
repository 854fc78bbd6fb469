"""The command `report` writes a page or prints its numbers, and explains what is missing."""

import json
import stat
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import duckdb
import pytest

from autopilothq import sample
from autopilothq.cli import out, reporting
from calling import Call
from contract.duck import held
from contract.loading import message
from reported import made
from shared_loads import command, isolation

FILE = "events.duckdb"
LIMIT = (
    "Invalid value for '--limit': Expected one of bounces, complaints, unsubscribes with percents, such as bounces=2 or"
    " complaints=0.1:0.3, but got "
)
NO_MACHINE = (
    "  no machines: They are unknown: email_opened has no column machine. Messages of Ortto have one, those of"
    " Autopilot do not. Mailbox providers that fetch pictures before anybody reads count as people here.\n"
)


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a load of a week of events."""
    home = tmp_path_factory.mktemp("week")
    with isolation(home):
        sample.write("archive", events=1200)
        with held(FILE):
            assert command("load", "archive", "archive", "--credentials", FILE).status == 0
        yield home / "work"


@pytest.fixture(autouse=True)
def at_home(week: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(week)
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", str(week / FILE))


def test_a_page_is_written_for_its_owner(call: Call, week: Path) -> None:
    said = call("report")
    page = week / "report.html"
    size = f"{page.stat().st_size / 1000:,.0f}"
    assert said == (0, f"report.html: 2019-03-01 to 2019-03-07, 1,177 email events, {size} kB\n{NO_MACHINE}", "")
    assert page.read_text().startswith('<!doctype html>\n<html lang="en">')
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert [path.name for path in week.iterdir() if path.name.startswith(".report")] == []


def test_a_page_that_is_there_is_replaced_and_a_link_is_not_written_through(call: Call, week: Path) -> None:
    other = week / "other.txt"
    other.write_text("mine")
    (week / "linked.html").symlink_to(other)
    assert call("report", "--output", "linked.html").status == 0
    assert other.read_text() == "mine"
    assert "email report" in (week / "linked.html").read_text()


@pytest.mark.parametrize("cause", [KeyError("a fault"), KeyboardInterrupt()])
@pytest.mark.parametrize("function", ["autopilothq.cli.reporting.report_page", "os.replace"])
def test_nothing_is_left_where_the_page_is_not_made(
    week: Path, monkeypatch: pytest.MonkeyPatch, function: str, cause: BaseException
) -> None:
    monkeypatch.setattr(function, mock.Mock(side_effect=cause))
    with pytest.raises(type(cause)):
        reporting.write_page(made(), "fault.html", show=False, quiet=True)
    assert [path.name for path in week.iterdir() if "fault.html" in path.name] == []


def test_numbers_are_printed_without_a_page(call: Call, week: Path) -> None:
    said = call("report", "--json", "--limit", "bounces=3", "--limit", "complaints=0.05:0.2", "--since", "2019-03-02")
    numbers = json.loads(said.out)
    assert numbers["limits"] == {
        "bounces": {"goal": 3.0, "most": 3.0},
        "complaints": {"goal": 0.05, "most": 0.2},
        "unsubscribes": {"goal": 0.5, "most": 0.5},
    }
    assert numbers["period"]["since"] == "2019-03-02T00:00:00+00:00"
    assert numbers["machines"]["absent"].startswith("They are unknown")
    assert not (week / "numbers.html").exists()
    again = call("report", "--json", "--output", "numbers.html")
    assert json.loads(again.out)["totals"]["deliveries"] > numbers["totals"]["deliveries"]
    assert (week / "numbers.html").exists()


def test_lines_that_were_not_asked_for_are_accounted_for(call: Call, week: Path) -> None:
    def told() -> tuple[dict[str, int], dict[str, int], str]:
        total = json.loads(call("report", "--dataset", "chosen", "--json").out)["books"]["total"]
        load = json.loads(call("status", "--dataset", "chosen", "--json").out)["last_load"]
        text = call("status", "--dataset", "chosen").out
        for counts, names in ((total, ("at",)), (load, ("id", "loaded_at"))):
            for name in names:
                del counts[name]
        return total, load, text

    events = ("Email Opened", "Email Clicked", "Email Clicked")
    messages = [message(event=event, messageId=f"m{number}") for number, event in enumerate(events)]
    Path("some.ndjson").write_text("".join(f"{json.dumps(one)}\n" for one in messages))
    assert call("load", "archive", "some.ndjson", "--dataset", "chosen", "--events", "Email Opened").status == 0
    counts = {"files": 1, "lines": 3, "stored": 1, "duplicates": 0, "rejected": 0, "skipped": 2}
    total, load, text = told()
    assert (total, load) == (counts, counts | {"mended": 0})
    assert "ago: 1 file, 3 lines, 1 stored, 0 duplicates, 0 rejected, 2 skipped\n" in text

    with duckdb.connect(str(week / FILE)) as con:  # an earlier release's `_audit`
        con.execute("ALTER TABLE chosen._audit DROP COLUMN skipped; ALTER TABLE chosen._audit DROP COLUMN mended")
    assert told()[:2] == (counts | {"skipped": 0}, counts | {"skipped": 0, "mended": 0})


def test_the_page_is_opened(call: Call, week: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def show(url: str) -> bool:
        opened.append(url)
        return len(opened) == 1

    monkeypatch.setattr(webbrowser, "open", show)
    assert call("report", "--open", "--output", "shown.html").err == ""
    assert opened == [(week / "shown.html").as_uri()]
    assert (
        f"There is no browser here. Open {week / 'shown.html'} yourself."
        in call("report", "--open", "--output", "shown.html").err
    )


def test_a_journey_that_is_not_there(call: Call) -> None:
    said = call("report", "--journey", "Newslettr\x1b[31m")
    assert (said.status, said.err) == (
        1,
        (
            "Error: Expected a journey's name or id, but autopilothq has no journey Newslettr\\x1b[31m.\n"
            "It has Newsletter, Onboarding Journey, Receipts, Trial Ending, Win-back, Événement Québec.\n"
        ),
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--limit", "x=3"),
            f"{LIMIT}'x=3'.",
        ),
        (
            ("--limit", "bounces=3:2"),
            f"{LIMIT}'bounces=3:2'.",
        ),
        (
            ("--since", "2019-03-02", "--until", "2019-03-02"),
            (
                "Invalid value for --until: Expected a later time than --since 2019-03-02T00:00:00+00:00, but got"
                " 2019-03-02T00:00:00+00:00."
            ),
        ),
        (
            ("--since", "2019-03-02T00:00:00+02:00", "--until", "2019-03-01"),
            (
                "Invalid value for --until: Expected a later time than --since 2019-03-02T00:00:00+02:00, but got"
                " 2019-03-01T00:00:00+00:00."
            ),
        ),
        (
            ("--output", "none/report.html"),
            "Invalid value for --output: none/report.html cannot be written: No such file or directory.",
        ),
        (
            ("--output", "file/report.html"),
            "Invalid value for --output: file/report.html cannot be written: Not a directory.",
        ),
    ],
)
def test_wrong_arguments(call: Call, words: tuple[str, ...], message: str) -> None:
    Path("file").touch()
    said = call("report", *words)
    assert said.status == 2
    assert said.err.endswith(f"Error: {message}\n")


def test_parts_that_are_empty_for_one_reason_are_told_at_once_in_the_width_of_the_terminal(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = "totals, days, journeys, links, domains, opening, sending, cohorts, machines, arrival"
    why = "There are no email events in this period."
    said = call("report", "--since", "2031-01-01")
    assert said.out.splitlines()[1:] == [f"  no {parts}: {why}"]
    monkeypatch.setattr(out, "width", lambda: 80)
    said = call("report", "--since", "2031-01-01")
    assert said.out.splitlines()[1:] == [
        "  no totals, days, journeys, links, domains, opening, sending, cohorts,",
        f"    machines, arrival: {why}",
    ]


def test_a_line_of_a_result_breaks_between_words_on_a_terminal_with_its_text_escaped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/tmp/" + "long-name-" * 4
    text = f"  1 refused: {path} has\x1b[31m no trigger for it"
    out.print_wrapped(text)
    monkeypatch.setattr(out, "width", lambda: 40)
    out.print_wrapped(text)
    assert capsys.readouterr().out.splitlines() == [
        f"  1 refused: {path} has\\x1b[31m no trigger for it",
        "  1 refused:",
        f"    {path}",
        "    has\\x1b[31m no trigger for it",
    ]


def test_a_dataset_that_is_not_there(call: Call) -> None:
    said = call("report", "--dataset", "other")
    assert said.status == 1
    assert "There is no dataset other" in said.err
