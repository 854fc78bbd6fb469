"""Events with user-defined names are mapped to Autopilot's (docs/contract/ortto.md#through-segment)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autopilothq.errors import InvalidSetting
from autopilothq.segment.mapping import mapped_line, read_mappings
from autopilothq.segment.message import digest, read_message
from contract.duck import held, tables
from shared_loads import command, isolation

MAPPING = {
    "Email sent": {
        "event": "Email Delivered",
        "properties": {
            "idt::c": "campaign_id",
            "Campaign name": "campaign_name",
            "activity.attr.str::s": "email_subject",
            'a "name"': "email_name",
        },
    },
    "link": {"event": "email_clicked", "properties": {"購入": "link_url"}},
    "Opens": {"event": "Email Opened"},
}
MAPPINGS = read_mappings(MAPPING)
OPENED = {"event": "Email Opened"}


def mapped(properties: str, event: str = "Email sent") -> str:
    """Returns the properties of a line after mapping."""
    line = f'{{"messageId":"m","type":"track","event":"{event}","properties":{properties},"userId":"1"}}\n'.encode()
    found = mapped_line(line, MAPPINGS).decode()
    return found.split('"properties":')[1].removesuffix(',"userId":"1"}\n')


@pytest.mark.parametrize(
    ("event", "properties", "found"),
    [
        ("Email sent", '{"idt::c":"d1","n":1.10}', '{"campaign_id":"d1","n":1.10}'),
        ("email_sent", '{"idt_c":"d1"}', '{"campaign_id":"d1"}'),  # named by their columns
        ("Email sent", '{"IDT c":"d1"}', '{"campaign_id":"d1"}'),
        ("Email sent", '{"campaign_name":"x"}', '{"campaign_name":"x"}'),
        ("Email sent", '{"Campaign name":"x"}', '{"campaign_name":"x"}'),
        ("Email sent", '{"activity":{"attr":{"str::s":"Hi","x":1}}}',
         '{"activity":{"attr":{"x":1}},"email_subject":"Hi"}'),
        ("Email sent", '{"activity_attr_str_s":"Hi"}', '{"email_subject":"Hi"}'),
        ("Email sent", '{"idt::c":{"a":1}}', '{"campaign_id":{"a":1}}'),
        ("Email sent", '{"idt::c":null}', '{"idt::c":null}'),
        ("Email sent", '{"idt::c":null,"Campaign name":"x","idt_c":2,"campaign_id":1}',
         '{"idt::c":null,"campaign_name":"x","idt_c":2,"campaign_id":1}'),
        ("Email sent", r'{"a \"name\"":1.10}', '{"email_name":1.10}'),
        # A property that has the new name already keeps it.
        ("Email sent", '{"campaign":{"id":1},"idt::c":"d1"}', '{"campaign":{"id":1},"idt::c":"d1"}'),
        ("Email sent", '{"campaign_id":1,"idt::c":"d1"}', '{"campaign_id":1,"idt::c":"d1"}'),
        ("Email sent", '{"idt::c":1,"idt_c":2}', '{"campaign_id":1,"idt_c":2}'),
        ("Link", '{"購入":"https://example.com"}', '{"link_url":"https://example.com"}'),
        ("Other", '{"idt::c":"d1"}', '{"idt::c":"d1"}'),
        ("Opens", '{"idt::c":"d1"}', '{"idt::c":"d1"}'),
        ("Email sent", '["idt::c"]', '["idt::c"]'),
    ],
)  # fmt: skip
def test_properties_get_their_new_names(event: str, properties: str, found: str) -> None:
    assert mapped(properties, event) == found


@pytest.mark.parametrize(
    "rest",
    [
        '"properties":{"idt::c":"d1","n":1.10}',
        '"properties":{"idt::c" : "d1"}',
        '"properties":{"a":"idt::c","idt::c":"d1"}',
        '"properties":{"idt::c":"d1","b":{"idt::c":"other"}}',
        '"context":{"idt::c":1},"properties":{"idt\\u003a:c":"d1"}',
        r'"properties":{"x\"idt::c":1,"idt:\u003ac":2}',
        r'"properties":{"x\"idt::c":1,"idt::c":2}',
        r'"properties":{"x\"idt::c":1,"idt::c" :2}',
        r'"properties":{"a":"\"idt::c\":","idt::c":2}',
        '"properties":{"campaign_id":null,"idt::c":"d1"}',
        '"properties":{"idt::c":1,"idt::c":2}',
        '"properties":{"idt::c":"d1"},"properties":{"idt::c":"d2"}',
        '"properties":{"Campaign name":"é","Campaign-Name":"x","str::s":1}',
    ],
)
def test_keys_are_renamed_in_the_text_as_in_what_was_read(monkeypatch: pytest.MonkeyPatch, rest: str) -> None:
    line = f'{{"type":"track","event":"Email sent","messageId":"m","userId":"1",{rest}}}\n'.encode()
    quick = read_message(mapped_line(line, MAPPINGS), frozenset())
    monkeypatch.setattr("autopilothq.segment.mapping._rename_in_text", lambda *_: None)
    assert quick.cells == read_message(mapped_line(line, MAPPINGS), frozenset()).cells
    assert sorted(quick.discards) == sorted(read_message(mapped_line(line, MAPPINGS), frozenset()).discards)


def test_other_lines_stay_as_they_are() -> None:
    body = b'"properties":{"idt::c":1}}\n'
    mappings = {**MAPPINGS, "_5": MAPPINGS["email_sent"]}
    for begin in (b'{"type":"identify","event":"Email sent",', b'{"type":"track",', b'{"type":"track","event":5,'):
        assert mapped_line(begin + body, mappings) == begin + body
    assert [mapped_line(line, MAPPINGS) for line in (b"no json\n", b"[1]\n")] == [b"no json\n", b"[1]\n"]


@pytest.mark.parametrize(
    "own",
    [
        '"messageId":" ",',
        '"messageId":null,',
        "",
        '"messageId":["x"],',
        '"messageId":7,',
        '"messageId":null,"messageId":"x",',
    ],
)
def test_a_mapped_message_has_the_id_that_it_would_have(own: str) -> None:
    rest = '"sentAt":" ","properties":{"idt::c":"d1"}}\n'
    line = f'{{{own}"type":"track","event":"Email sent","userId":"1",{rest}'.encode()
    read = read_message(mapped_line(line, MAPPINGS), frozenset())
    found = read.cells
    assert [one[:2] for one in read.discards] == [one[:2] for one in read_message(line, frozenset()).discards]
    assert found["id"] == read_message(line, frozenset()).cells["id"] == ("7" if "7" in own else digest(line))
    assert (found["campaign_id"], found["sent_at"]) == ("d1", '" "')


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("[]", "a table as {}, but got list."),
        ({"a": 1}, 'a table as {}."a", but got int.'),
        ({"a": {}}, 'an event of the catalogue as {}."a".event, such as {events}, but got None.'),
        ({"a": {"event": "Opened"}},
         'an event of the catalogue as {}."a".event, such as {events}, but got \'Opened\'.'),
        ({"a": {"event": "Received email"}},
         'an event of the catalogue as {}."a".event, such as {events}, but got \'Received email\'.'),
        ({" ": {"event": "Email Opened"}}, "the name of an event in {}, but got ' '."),
        ({"a b": OPENED, "A-B": OPENED}, "each event once in {}, but got 'A-B'."),
        ({"a": {**OPENED, "property": {}}}, "only event and properties, not property, in {}, but got 'a'."),
        ({"a": {**OPENED, "properties": {"x": "é"}}},
         'the name of a column as {}."a".properties."x", but got \'é\'.'),
        ({"a": {**OPENED, "properties": {"x": 1}}}, 'the name of a column as {}."a".properties."x", but got 1.'),
    ],
)  # fmt: skip
def test_wrong_settings(settings: Any, message: str) -> None:
    with pytest.raises(InvalidSetting) as error:
        read_mappings(settings)
    events = "Email Bounced, Email Delivered, Email Clicked"
    assert str(error.value) == "Expected " + message.format("sources.autopilothq.mapping", events=events)


# A whole load -------------------------------------------------------------------------------------------------------

CONFIG = """
[sources.autopilothq.mapping."Email sent"]
event = "Email Delivered"

[sources.autopilothq.mapping."Email sent".properties]
"idt::c" = "campaign_id"
"str::s" = "email_subject"

[sources.autopilothq.mapping."Opens"]
event = "Email Opened"

[sources.autopilothq.mapping."開封"]
event = "Email Opened"

[sources.autopilothq.mapping."開封".properties]
"キャンペーン" = "campaign_id"
"""


def track(id_: str, name: str, properties: dict[str, Any]) -> dict[str, Any]:
    """Returns a track of Ada's."""
    return {
        "type": "track", "event": name, "messageId": id_, "userId": "1", "receivedAt": "2026-11-01T05:06:07.000Z",
        "properties": properties,
    }  # fmt: skip


LINES = [
    track("m1", "Email sent", {"idt::c": "d1", "str::s": "Hi", "event": "Email sent", "other": 1}),
    track("m2", "email_sent", {"idt::c": "d2"}),
    track("m3", "Opens", {"idt::c": "d1"}),
    track("m4", "Email Opened", {"campaign_id": "c1"}),
    track("m5", "Something else", {"x": 1}),
    track("m6", "開封", {"キャンペーン": "d1"}),  # names without a slug
    track("m7", "購入" * 50, {"x": 1}),
]


@pytest.fixture(scope="module", params=[[], ["--engine", "processes:2"]], ids=["here", "engine"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    home = tmp_path_factory.mktemp("mapped")
    (home / "work" / ".dlt").mkdir(parents=True)
    (home / "work" / ".dlt" / "config.toml").write_text(CONFIG)
    with isolation(home):
        Path("archive").mkdir()
        Path("archive/1.ndjson").write_text("".join(json.dumps(line) + "\n" for line in LINES))
        said = command("load", "archive", "archive", *request.param)
        assert said.status == 0, said.err
        yield tables()


def test_a_mapped_event_is_in_its_table_and_keeps_its_name(loaded: dict[str, Any]) -> None:
    rows = {row["id"]: row for row in loaded["email_delivered"]}
    shown = ("event", "event_text", "campaign_id", "email_subject", "other")
    assert {id_: tuple(row[name] for name in shown) for id_, row in rows.items()} == {
        "m1": ("email_delivered", "Email sent", "d1", "Hi", 1),
        "m2": ("email_delivered", "email_sent", "d2", None, None),
    }
    assert "idt_c" not in rows["m1"]
    assert "_event" not in rows["m1"]
    opened = {row["id"]: (row["event_text"], row["campaign_id"], row["idt_c"]) for row in loaded["email_opened"]}
    assert opened == {"m3": ("Opens", None, "d1"), "m4": ("Email Opened", "c1", None), "m6": ("開封", "d1", None)}
    assert "email_sent" not in loaded
    assert sorted((row["id"], row["event"]) for row in loaded["tracks"]) == [
        ("m1", "email_delivered"), ("m2", "email_delivered"), ("m3", "email_opened"), ("m4", "email_opened"),
        ("m5", "something_else"), ("m6", "email_opened"), ("m7", None),
    ]  # fmt: skip
    assert [(row["row_id"], row["reason"]) for row in loaded["_discards"]] == [("m7", "no_column")]


def test_mapped_events_can_be_asked_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    with isolation(tmp_path_factory.mktemp("selected")):
        Path("archive").mkdir()
        Path("archive/1.ndjson").write_text("".join(json.dumps(line) + "\n" for line in LINES))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SOURCES__AUTOPILOTHQ__MAPPING", json.dumps(MAPPING))
            with held():
                assert command("load", "archive", "archive", "--events", "Email sent").status == 0
            found = tables()
            assert [row["id"] for row in found["email_delivered"]] == ["m1", "m2"]
            assert found["email_opened"] == []
            with held():
                assert command("load", "archive", "archive", "--events", "email_opened").status == 0
            assert [row["id"] for row in tables()["email_opened"]] == ["m3", "m4"]
