"""Which values fields of Ortto take, which field or activity a name means, and what is refused."""

from datetime import date
from typing import Any

import pytest

from autopilothq.clients.ortto_answers import Written
from autopilothq.destination.ortto import refusal, was_written
from autopilothq.destination.ortto_fields import Activities, OrttoFields
from autopilothq.destination.ortto_values import cast_ortto, ortto_type, readable
from autopilothq.destination.values import CastError


@pytest.mark.parametrize(
    ("value", "kind", "cast"),
    [
        (5, "str", "5"),
        (5.5, "str", "5.5"),
        ("", "str", ""),
        (None, "phn", None),
        ("12", "int", 12),
        (1.0, "int", 1),
        ("1.005", "decimal", 1005),
        (-0.001, "decimal", -1),
        (7, "decimal", 7000),
        ("yes", "bol", None),
        ("1.0", "bol", True),
        (date(2026, 3, 1), "dtz", {"year": 2026, "month": 3, "day": 1, "timezone": "UTC"}),
        ("2026-03-01T01:00:00+02:00", "dtz", {"year": 2026, "month": 2, "day": 28, "timezone": "UTC"}),
        (1_772_600_767, "tme", "2026-03-04T05:06:07Z"),
        ("0001-01-01", "tme", "0001-01-01T00:00:00Z"),
        ("0044 555 0100", "phn", {"phone": "445550100", "parse_with_country_code": True}),
        ("0555 0100", "phn", {"phone": "05550100", "parse_with_country_code": False}),
        ("Łódź", "geo", {"name": "Łódź"}),
    ],
)
def test_values_become_what_a_field_takes(value: Any, kind: str, cast: Any) -> None:
    if kind == "bol" and cast is None:
        with pytest.raises(CastError, match="expected true or false, got 'yes'"):
            cast_ortto(value, kind)
    else:
        assert cast_ortto(value, kind) == cast


@pytest.mark.parametrize(
    ("value", "kind", "why"),
    [
        ("1.0005", "decimal", "expected a number with at most 3 digits after the point, got '1.0005'"),
        ("NaN", "decimal", "expected a number with at most 3 digits after the point, got 'NaN'"),
        (float("inf"), "decimal", "expected a number with at most 3 digits after the point, got inf"),
        (2**60, "decimal", f"expected a number with at most 3 digits after the point, got {2**60}"),
        (True, "decimal", "expected a number, got True"),
        ([1], "decimal", "expected a number, got an array"),
        (b"1", "decimal", "expected a number, got b'1'"),
        ("1e999999", "decimal", "expected a number, got '1e999999'"),
        (2**63, "int", "expected an integer of 64 bits, got 9223372036854775808"),
        ("none", "phn", "expected a phone number, got 'none'"),
        ("soon", "dtz", "expected a date, got 'soon'"),
        *(
            (time, kind, f"expected a date of the years 1 to 9999 in UTC, got '{time}'")
            for time, kind in [("0001-01-01T00:00:00+02:00", "dtz"), ("9999-12-31T23:59:59-12:00", "tme")]
        ),
        ("x", "obj", "this kind of field cannot be written"),
    ],
)
def test_values_that_a_field_does_not_take_are_told(value: Any, kind: str, why: str) -> None:
    with pytest.raises(CastError) as caught:
        cast_ortto(value, kind)
    assert str(caught.value) == why


def test_a_decimal_is_a_number_that_the_account_shows_as_one() -> None:
    types = {"int:cm:x": "decimal", "str:cm:x": "str", "flt:cm:x": "flt"}
    assert {id_: ortto_type(id_, "decimal") for id_ in types} == types
    assert ortto_type("int:cm:x", "integer") == "int"
    assert [readable(value, "decimal") for value in (1500, None)] == [1.5, None]


def test_traits_go_to_the_fields_that_they_are_mapped_to() -> None:
    notes = {"id": "str:cm:notes", "name": "Notes", "display_type": "text"}
    mapping = {"plan": "Notes", "size.text": "str:cm:notes", "called": "FirstName", "work.mail": "Email"}
    fields = OrttoFields([notes, {"id": "str:cm:x"}], mapping)
    found = {path: fields.of_trait(tuple(path.split("."))) for path in (*mapping, "str:cm:x", "other")}
    keys = {path: getattr(field, "key", field) for path, field in found.items()}
    assert keys == mapping | {"plan": "str:cm:notes", "str:cm:x": "str:cm:x", "other": None}
    assert fields.labels["str:cm:x"] == "str:cm:x"


def test_activities_and_attributes_are_known_by_ids_and_names() -> None:
    order = {"name": "order done", "attributes": [{"id": "str:cm:no", "name": "Order No", "display_type": "text"}, 5]}
    fields = {"act:cm:a": order, "act:cm:b": {"name": "Order Done"}, "act:cm:c": {}, "act:cm:d": None, "x": {}}
    found = Activities({"namespaces": {"cm": {"fields": fields}, "y": {"fields": None}, "z": None}})
    assert found.journeys() == {"act:cm:a": "order done", "act:cm:b": "Order Done", "act:cm:c": "act:cm:c"}
    assert [found.of(name) for name in ("order done", "Order Done", "orderDone")] == [[f"act:cm:{of}"] for of in "aba"]
    for name in ("Order No", "orderNo", "str:cm:no"):
        assert found.attributes("act:cm:a", {name: 1}) == ({"str:cm:no": "1"}, {})
    assert found.attributes("act:cm:b", {"No": 1}) == ({}, {"No": "left out: act:cm:b has no such attribute"})
    assert Activities({"namespaces": None}).journeys() == {}


@pytest.mark.parametrize(
    ("written", "why"),
    [
        (Written("merged", "1", None), None),
        (Written(None, None, None), None),
        (Written("odd", None, None), None),
        (Written("invalid", None, None), "invalid"),
        (Written("invalid", "1", "no such field"), "no such field"),
        (Written("merged", "1", "but not whole"), "but not whole"),
        (Written(None, None, ""), "refused without a reason"),
    ],
)
def test_what_is_refused_has_a_status_or_an_error(written: Written, why: str | None) -> None:
    assert (None if was_written(written) else refusal(written)) == why
