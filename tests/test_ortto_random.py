"""With random bodies and random mapped lines, nothing is refused and nothing is lost."""

import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest

from autopilothq.errors import InvalidSetting
from autopilothq.receive.messages import ArchiveLines, Arrival, InvalidJson, kept_line, parse_body
from autopilothq.receive.ortto import ortto_lines
from autopilothq.receive.settings import ortto_settings
from autopilothq.segment import mapping
from autopilothq.segment.message import Message, Rejected, read_message

KEYS = [
    "activity",
    "contact",
    "id",
    "field_id",
    "created",
    "created_at",
    "attr",
    "campaign_id",
    "run_id",
    "contact_id",
    "email",
    "time",
    "type",
    "event",
    "properties",
    "idt::c",
    "str::s",
    "geo::city",
    "phn::x",
    "dtz::d",
    "int:cm:p",
    "name",
    "lat",
    "lng",
    "c",
    "n",
    "year",
    "month",
    "day",
    "é",
    "�",
    "idt_c",
]
VALUES: list[Any] = [
    "act::o", "act::test_webhook", "act:cm:x", "x", "", None, True, 1, -5, 1.5, "2026-11-01T05:06:07Z", "\ud800",
    "track", "delete", "\0", "12",
]  # fmt: skip
MAPPINGS = mapping.read_mappings({
    "x": {
        "event": "Email Opened",
        "properties": {"idt::c": "campaign_id", "attr.str::s": "email_subject", "contact": "y", "é": "n"},
    }
})  # fmt: skip


def value(chance: random.Random, depth: int = 0) -> Any:
    """Returns a strategy for any JSON."""
    which = chance.random()
    if depth > 4 or which < 0.5:
        return chance.choice(VALUES)
    if which < 0.85:
        return {chance.choice(KEYS): value(chance, depth + 1) for _ in range(chance.randrange(5))}
    return [value(chance, depth + 1) for _ in range(chance.randrange(3))]


def text(one: Any, chance: random.Random) -> bytes:
    return json.dumps(one, ensure_ascii=chance.random() < 0.5).encode(errors="surrogatepass")


def lines_of_body(body: bytes) -> ArchiveLines:
    """Returns the lines that the receiver makes from a body."""
    try:
        return ortto_lines(parse_body(body), Arrival(datetime.now(UTC), None, "random"))
    except InvalidJson:
        return kept_line(body)


def test_every_body_becomes_lines() -> None:
    chance = random.Random(1)
    readable = 0
    for _ in range(2_000):
        fields = ["act::o", "act::u-a", "act:cm:x", 1, {"a": 1}]
        one = {
            "activity": {"id": chance.choice(VALUES), "field_id": chance.choice(fields), "attr": value(chance, 1)},
            "contact": {"email": "a@b.c", "more": value(chance, 1)},
        }
        body = text(one if chance.random() < 0.7 else value(chance), chance)
        body = body[: chance.randrange(len(body) + 1)] if chance.random() < 0.1 else body
        found = lines_of_body(body)
        assert found.data.count(b"\n") == found.lines, body
        for line in found.data.split(b"\n")[:-1]:
            try:
                readable += bool(read_message(line, frozenset()))
            except Rejected:
                continue
    assert readable > 500


def values_of(message: Message) -> list[str]:
    """Returns all values of the message's properties and of its discards."""
    own = ("id", "event", "user_id", "kind", "anonymous_id")
    cells = [cell.strip('"') for name, cell in message.cells.items() if name not in own]
    return sorted([*cells, *(discard.value.strip('"') for discard in message.discards)])


def test_a_mapping_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(2)
    renamed = 0
    for _ in range(2_000):
        one = {"type": "track", "event": "x", "userId": "1", "properties": value(chance)}
        line = text({**one, "messageId": chance.choice(VALUES)} if chance.random() < 0.5 else one, chance) + b"\n"
        try:
            before = read_message(line, frozenset())
        except Rejected:
            continue
        quick = read_message(mapping.mapped_line(line, MAPPINGS), frozenset())
        with monkeypatch.context() as patch:
            patch.setattr(mapping, "_rename_in_text", lambda *_: None)
            slow = read_message(mapping.mapped_line(line, MAPPINGS), frozenset())
        assert (quick.cells, sorted(quick.discards)) == (slow.cells, sorted(slow.discards)), line
        assert quick.cells["id"] == before.cells["id"], line
        assert values_of(quick) == values_of(before), line
        renamed += quick.cells != before.cells
    assert renamed > 100


def test_settings_of_an_endpoint_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECEIVE__ORTTO__ENV__PERSONAL", "true")
    monkeypatch.setenv("RECEIVE__ORTTO__ENV__NAMES", '{"act:cm:x": "Bought"}')
    monkeypatch.setenv("RECEIVE__ORTTO__ENV__DECIMALS", '["int:cm:p"]')
    found = ortto_settings("env")
    assert found.personal
    assert found.names.activities == {"act:cm:x": "Bought"}
    assert [field.display_type for field in found.names.attributes.values()] == ["decimal"]


NO_NAMES = 'Expected names by ids as receive.ortto.NAME.names, like "act:cm:bought" = "Bought"'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("PERSONAL", "perhaps", "Expected true or false as receive.ortto.NAME.personal, but got 'perhaps'."),
        ("NAMES", "x", f"{NO_NAMES}, but got 'x'."),
        ("NAMES", '{"b": "B", "a": 1}', f"{NO_NAMES}, but got 'a' = 1."),
        ("NAMES", f'["{"x" * 300}"]', f"{NO_NAMES}, but got ['{'x' * 197}…."),
        ("DECIMALS", "[1]", "Expected a text, or a list of texts, as receive.ortto.NAME.decimals, but got 1."),
        (
            "DECIMALS",
            '[" "]',
            "Expected a text, or a list of texts, as receive.ortto.NAME.decimals, but got an empty text.",
        ),
    ],
)
def test_wrong_settings_of_an_endpoint(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, name: str, content: str, message: str
) -> None:
    endpoint = f"wrong{request.node.callspec.indices['name']}"  # its settings are read once
    monkeypatch.setenv(f"RECEIVE__ORTTO__{endpoint.upper()}__{name}", content)
    with pytest.raises(InvalidSetting) as error:
        ortto_settings(endpoint)
    assert str(error.value) == message.replace("NAME", endpoint)
