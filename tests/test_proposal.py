"""What the command `mapping` shows about an archive, and the mapping that it proposes."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from autopilothq.segment.json_text import DECODER
from autopilothq.segment.mapping import read_mappings
from autopilothq.segment.proposal import MAX_EVENTS, MAX_PROPERTIES, SeenEvent, masked_sample, propose
from calling import Call


def seen(name: str, *properties: Any) -> SeenEvent:
    """Returns the event of messages with these properties."""
    event = SeenEvent(name)
    for one in properties:
        event.add(DECODER.decode(json.dumps(one)))
    return event


@pytest.mark.parametrize(
    ("name", "properties", "event", "why"),
    [
        ("Email sent", {"activity": {"field_id": "act::r"}}, "Email Delivered", "activity.field_id"),
        ("Email sent", {}, "Sent email", "its name"),
        ("Mail opens", {}, "Email Opened", "its name"),
        ("CLICKED_LINK", {}, "Email Clicked", "its name"),
        ("Spam complaint", {}, "Email Marked as Spam", "its name"),
        ("Emial Bonced", {}, "Email Bounced", "its name"),
        ("Email Replid", {}, "Email Replied", "its name"),
        ("Opened or clicked", {}, None, ""),  # both are equally likely
        ("Farewell", {"idt::c": "d1", "str::u-ctx": "x"}, "Email Unsubscribed", "its properties"),
        ("Email unsubscribed, sent", {}, "Email Unsubscribed", "its name"),
        ("Farewell", {"x": "act::s"}, "Sent email", "x"),
        ("Purchase", {"total": 1}, None, ""),
        ("購入", {}, None, ""),
    ],
)
def test_which_event_is_proposed(name: str, properties: Any, event: str | None, why: str) -> None:
    assert propose(seen(name, properties))[:2] == (event, why)


def test_an_activity_is_that_of_all_messages() -> None:
    for others in ({"x": "act::o"}, {}):
        assert propose(seen("Email sent", {"x": "act::r"}, others))[:2] == ("Sent email", "its name")


def test_the_first_values_of_a_property_are_shown() -> None:
    assert seen("x", *({"a": number} for number in (1, 1, 2, 3, 4))).properties[("a",)].values == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("name", "properties", "columns"),
    [
        ("Opens", {"idt::c": 1, "str::asn": 1, "bol::m": 1}, ["campaign_id", "email_name", "machine"]),
        ("Opens", {"idt_c": 1}, ["campaign_id"]),
        ("Opens", {"Subject": 1, "Campaign name": 1, "Campain nam": 1}, ["email_subject", None, None]),
        ("Clicks", {"a": {"Possible machine click": 1}, "URL clicked": 1}, ["machine", "link_url"]),
        ("Bounces", {"Reason": 1, "Category": 1}, ["bounce_reason", "bounce_category"]),
        ("Unsubscribes", {"Reason": 1, "str::br": 1}, ["unsubscribe_reason", None]),
        ("Spam", {"str::rn": 1}, ["spam_reason"]),
        ("Opens", {"idt::c": 1, "campaign": {"id": 2}}, [None, None]),  # the column exists already
        ("Opens", {"x": {"idt::c": 1}, "idt::c": 1}, ["campaign_id", None]),
        # A property that has a column does not get another one of a similar name.
        ("Clicks", {"UTM campaign name": 1}, ["utm_campaign"]),
        ("Clicks", {"campaign_name": 1}, [None]),
    ],
)
def test_which_columns_are_proposed(name: str, properties: Any, columns: list[str | None]) -> None:
    event = seen(name, properties)
    found = propose(event).properties
    assert [found.get(path) for path in event.properties] == columns


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("ada@example.com", "aaa@aaaaaaa.aaa"),
        ("Grüße 12", "Aaaaa 99"),
        ("x" * 30, "a" * 24 + "…"),
        ("act::o", "act::o"),
        ("true", "true"),
        ("2026-11-01T05:06:07Z", "9999-99-99A99:99:99A"),
    ],
)
def test_samples_are_masked(text: str, masked: str) -> None:
    assert masked_sample(text) == masked


def line(event: Any, properties: Any, kind: str = "track") -> str:
    """Returns a line of the archive."""
    return json.dumps({"type": kind, "event": event, "properties": properties, "userId": "1"}) + "\n"


LINES = [
    *[line("Email sent", {"activity": {"field_id": "act::r", "attr": {"idt::c": f"d{n}"}}, "n": n}) for n in (1, 2, 2)],
    line("Opens", {"Campaign ID": "d1", "bol::m": True, "bad\x1b[31m\n": "ada@example.com"}),
    line("Purchase", {"total": 1.5}),
    line("half \ud83d", {}),
    line("Email Opened", {}),
    line("Mapped already", {"x": 1}),
    line("Opens", {}, "identify"),
    line(5, {}),
    "no json\n",
    '{"type":"track","event":"Opens","properties":{"NaN":NaN}}\n',
    '{"type":"track","event":"Email Opened","properties":{"NaN":NaN}}\n',
]
SHOWN = r"""# 13 lines: 2 of Autopilot's events, 1 of mapped ones,
# 7 of others.

# "Email sent": 3 messages. By activity.field_id: Email Delivered.
[sources.autopilothq.mapping."Email sent"]
event = "Email Delivered"

[sources.autopilothq.mapping."Email sent".properties]
# "activity.field_id": text, 3: act::r
"activity.attr.idt::c" = "campaign_id"  # text, 3: a9, a9
# "n": integer, 3: 9, 9

# "Opens": 2 messages. By its name: Email Opened.
[sources.autopilothq.mapping."Opens"]
event = "Email Opened"

[sources.autopilothq.mapping."Opens".properties]
# "Campaign ID" is campaign_id already: text, 1: a9
"bol::m" = "machine"  # boolean, 1: true
# "bad\u001b[31m\n": text, 1: aaa@aaaaaaa.aaa
# "NaN": number, 1: AaA

# "Purchase": 1 message. No event of Autopilot's is like it, so it keeps its table.
# "total": number, 1: 9.9

# "half \ud83d": 1 message. No event of Autopilot's is like it, so it keeps its table.
"""


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive with strangers' events, one of which is mapped."""
    Path("archive").mkdir()
    Path("archive/1.ndjson").write_text("".join(LINES))
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__MAPPING", '{"Mapped already": {"event": "Email Opened"}}')


@pytest.mark.usefixtures("archive")
def test_what_is_printed_is_a_setting(call: Call) -> None:
    said = call("mapping", "archive")
    assert said == (0, SHOWN, "")
    mapping = tomllib.loads(said.out)["sources"]["autopilothq"]["mapping"]
    assert {event: one.properties for event, one in read_mappings(mapping).items()} == {
        "email_sent": {"activity.attr.idt::c": "campaign_id", "activity_attr_idt_c": "campaign_id"},
        "opens": {"bol::m": "machine", "bol_m": "machine"},
    }


@pytest.mark.usefixtures("archive")
def test_the_same_as_json(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__ARCHIVE_URL", "archive")
    found = json.loads(call("mapping", "--json", "--lines", "5").out)
    assert (found["lines"], found["unknown"], [event["name"] for event in found["events"]]) == (
        5,
        5,
        ["Email sent", "Opens", "Purchase"],
    )
    assert found["events"][2] == {
        "name": "Purchase",
        "number": 1,
        "event": None,
        "by": "",
        "properties": {"total": {"number": 1, "kinds": ["number"], "samples": ["9.9"], "column": None}},
    }


def test_blank_lines_are_none(call: Call) -> None:
    Path("a.ndjson").write_text(
        "\n".join(["", LINES[0].strip(), " \r", "\ufeff" + LINES[0].strip(), "\ufeff\t", "no JSON", ""])
    )
    found = [json.loads(call("mapping", "a.ndjson", "--json", *more).out) for more in ((), ("--lines", "2"))]
    assert [(each["lines"], each["unknown"]) for each in found] == [(3, 2), (2, 2)]


def test_a_known_event_and_another_message_need_no_mapping_where_the_engine_cannot_read_them(call: Call) -> None:
    track = r'{"type": "track", "event": "Email Opened", "properties": {"half": "\ud83d"}}'
    identify = r'{"type": "identify", "userId": "\ud83d", "event": "Purchase"}'
    nameless = [rf'{{"type": "track", "userId": "\ud83d", "event": {event}}}' for event in ("5", "[]", "null")]
    Path("a.ndjson").write_text("\n".join([track, identify, *nameless, track]))
    found = json.loads(call("mapping", "a.ndjson", "--json").out)
    assert found == {"lines": 6, "known": 2, "mapped": 0, "unknown": 0, "events": []}


def test_names_without_number_take_bounded_room(call: Call) -> None:
    Path("archive").mkdir()
    keys = {f"k{number}": 1 for number in range(MAX_PROPERTIES + 100)}
    lines = [line(f"Event {number}", keys if not number else {}) for number in range(MAX_EVENTS + 5)]
    lines.append(lines[0])
    Path("archive/1.ndjson").write_text("".join(lines))
    found = json.loads(call("mapping", "archive", "--json").out)
    assert (len(found["events"]), found["unknown"]) == (MAX_EVENTS, MAX_EVENTS + 6)
    assert [it["number"] for it in found["events"][0]["properties"].values()] == [2] * MAX_PROPERTIES


def test_an_archive_must_be_named(call: Call) -> None:
    said = call("mapping")
    assert said.status == 2
    assert "Which archive? Name a URL, or set sources.autopilothq.archive_url" in " ".join(said.err.split())
