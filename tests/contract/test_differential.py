"""The fast path reads lines like the slow one, `segment.message.read_message`, whatever a line holds."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings

from contract import generated
from contract.both_ways import differences
from contract.loading import message, raw, rows_of

EACH = [generated.each_value, generated.each_key, generated.each_depth, generated.each_byte]


@pytest.mark.parametrize("lines", EACH, ids=lambda lines: lines.__name__)
def test_each_oddity_is_read_at_once_as_it_is_read_alone(lines: Callable[[], list[bytes]]) -> None:
    """Both paths give the same rows, types, rejects, discards and counts, and nothing raises."""
    assert differences(lines(), before=generated.TYPED) == []


@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(generated.odd_lines(shapes=5, others=24))  # few large loads, because a load costs more than its lines
def test_lines_are_read_at_once_as_they_are_read_one_by_one(lines: list[bytes]) -> None:
    """The short form of `benchmarks/fuzz.py`."""
    assert differences(lines) == []


def test_numbers_keep_their_digits_as_text() -> None:
    """Asserts the text itself, because both paths could make the same mistake."""
    places = {
        "campaign_id": "properties",
        "context_library_name": "context",
        "mixed": "properties",
        "array": "properties",
    }
    bodies = {
        "properties": '{"campaign_id":$,"mixed":$,"array":[$,[$]]}',
        "context": '{"library":{"name":$}}',
    }
    spelt = [number for number in generated.SPELT if number.strip("-") not in ("NaN", "Infinity")]
    lines = [
        raw(message(messageId=f"{n:02}", userId="$u", **{name: f"${name}" for name in bodies}),
            u=number, **{name: body.replace("$", number) for name, body in bodies.items()})
        for n, number in enumerate(spelt)
    ]  # fmt: skip
    rows = rows_of(*lines, raw(message(messageId="99", properties="$p"), p='{"mixed":"x"}'))["email_opened"][:-1]
    assert places.keys() <= rows[0].keys()
    assert [[row[name] for name in ("user_id", *places)] for row in rows] == [
        [number, number, number, number, f"[{number},[{number}]]"] for number in spelt
    ]
