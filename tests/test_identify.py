"""Traits become a contact as the API takes it (docs/contract/destination.md#identify)."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from autopilothq.catalog import STANDARD_FIELDS
from autopilothq.destination.fields import ContactFields, Fields, contact_fields
from autopilothq.errors import InvalidSetting

CUSTOM: list[Any] = [
    {"name": "Review Rating", "fieldType": "integer"},
    {"name": "Smog Level", "fieldType": "float"},
    {"name": "Customer", "fieldType": "boolean"},
    {"name": "Trial Ends", "fieldType": "date"},
    {"name": "user id", "fieldType": "string"},
    {"name": "Order Completed", "fieldType": "string"},
    {"name": "Gone", "fieldType": "string", "deleted": True},
    {"name": 5, "fieldType": "string"},
    "no field",
]
EMAIL = "ann@example.com"


def made(traits: dict[str, Any], mapping: dict[str, str] | None = None, **more: Any) -> ContactFields:
    fields = Fields(CUSTOM, mapping, more.pop("user_id_field", None))
    return contact_fields(fields, EMAIL, traits, **more)


def values(traits: dict[str, Any], mapping: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    found = made(traits, mapping, **more).values
    assert found.pop("Email") == EMAIL
    return found


@pytest.mark.parametrize("spelling", ["firstName", "first_name", "firstname", "FirstName", "FIRST NAME", "first-name"])
def test_standard_fields_are_known_in_all_spellings(spelling: str) -> None:
    assert values({spelling: "Ann"}) == {"FirstName": "Ann"}


@pytest.mark.parametrize(
    ("traits", "expected"),
    [
        ({"name": "Ann van der Berg"}, {"FirstName": "Ann", "LastName": "van der Berg"}),
        ({"name": " Ann "}, {"FirstName": "Ann"}),
        ({"name": "Ann Lee", "lastName": "Ito"}, {"LastName": "Ito"}),
        ({"salutation": "Dr"}, {"Salutation": "Dr"}),
        ({"company": "Acme"}, {"Company": "Acme"}),
        ({"company": {"name": "Acme", "employee_count": 42}}, {"Company": "Acme", "NumberOfEmployees": "42"}),
        ({"company": {"employeeCount": "11-50"}}, {"NumberOfEmployees": "11-50"}),
        ({"employees": 10001.0}, {"NumberOfEmployees": "10001"}),
        ({"title": "CEO", "industry": "Steel"}, {"Title": "CEO", "Industry": "Steel"}),
        ({"phone": "+65 1", "mobile_phone": 5, "fax": "6"}, {"Phone": "+65 1", "MobilePhone": "5", "Fax": "6"}),
        ({"website": "a.b", "twitter": "@a", "linkedIn": "a"}, {"Website": "a.b", "Twitter": "@a", "LinkedIn": "a"}),
        ({"status": "new", "leadSource": "web"}, {"Status": "new", "LeadSource": "web"}),
        (
            {"address": {"street": "1 A St", "city": "B", "state": "C", "postalCode": "0123", "country": "D"}},
            {
                "MailingStreet": "1 A St",
                "MailingCity": "B",
                "MailingState": "C",
                "MailingPostalCode": "0123",
                "MailingCountry": "D",
            },
        ),
        ({"address": "1 A St, B"}, {"MailingStreet": "1 A St, B"}),
        (
            {"Street": "1 A St", "city": "B", "STATE": "C", "postal_code": "0123", "country": "D"},
            {
                "MailingStreet": "1 A St",
                "MailingCity": "B",
                "MailingState": "C",
                "MailingPostalCode": "0123",
                "MailingCountry": "D",
            },
        ),
        ({"zip": 94103}, {"MailingPostalCode": "94103"}),
        ({"zipCode": "9"}, {"MailingPostalCode": "9"}),
        ({"postalCode": "9"}, {"MailingPostalCode": "9"}),
        ({"address": {"zip": "9", "City": "B"}}, {"MailingPostalCode": "9", "MailingCity": "B"}),
        ({"address": {"zipcode": "9"}}, {"MailingPostalCode": "9"}),
        ({"jobTitle": "CTO"}, {"Title": "CTO"}),
        ({"job_title": "CTO"}, {"Title": "CTO"}),
        ({"phones": ["1", "2"], "websites": ("a.b",)}, {"Phone": "1", "Website": "a.b"}),
        ({"phones": [], "websites": "a.b"}, {"Website": "a.b"}),
        ({"_autopilot_list": "contactlist_1"}, {"_autopilot_list": "contactlist_1"}),
        ({"_autopilot_session_id": "abc"}, {"_autopilot_session_id": "abc"}),
        ({"notify": "false"}, {"notify": False}),
        ({"unsubscribed": True}, {"unsubscribed": True}),
        ({"unsubscribed": "false"}, {"unsubscribed": False}),
        ({"_NewEmail": "new@example.com"}, {"_NewEmail": "new@example.com"}),
    ],
)  # fmt: skip
def test_standard_fields(traits: dict[str, Any], expected: dict[str, Any]) -> None:
    assert made(traits).unknown == []
    assert values(traits) == expected


def test_every_standard_field_is_reached_by_its_own_name() -> None:
    for name in set(STANDARD_FIELDS) - {"Email", "unsubscribed"}:
        assert values({name: "x"}) == {name: "x"}


@pytest.mark.parametrize(
    ("traits", "expected"),
    [
        ({"firstName": None}, {"FirstName": None}),
        ({"name": None}, {"FirstName": None, "LastName": None}),
        (
            {"address": None},
            dict.fromkeys(
                ["MailingStreet", "MailingCity", "MailingState", "MailingPostalCode", "MailingCountry"], None
            ),
        ),
        ({"name": None, "title": "T"}, {"FirstName": None, "LastName": None, "Title": "T"}),
        ({"name": "Ann Lee", "title": "T"}, {"FirstName": "Ann", "LastName": "Lee", "Title": "T"}),
        ({"review_rating": None}, {"custom": {"integer--Review--Rating": None}}),
    ],
)
def test_null_clears(traits: dict[str, Any], expected: dict[str, Any]) -> None:
    assert values(traits) == expected


@pytest.mark.parametrize("name", ["Review Rating", "review_rating", "reviewRating", "ReviewRating", "review rating"])
def test_a_field_of_the_account_by_its_name_or_in_snake_case(name: str) -> None:
    assert values({name: 4}) == {"custom": {"integer--Review--Rating": 4}}
    assert values({"review": {"Rating": 4}}) == {"custom": {"integer--Review--Rating": 4}}


@pytest.mark.parametrize(
    ("trait", "value", "expected"),
    [
        ("review_rating", "5", 5),
        ("review_rating", 5.0, 5),
        ("review_rating", Decimal("5.00"), 5),
        ("smog_level", 4, 4),
        ("smog_level", "4.5", 4.5),
        ("smog_level", Decimal("4.5"), 4.5),
        ("smog_level", " 9007199254740993", 9007199254740993),
        ("smog_level", Decimal(-9007199254740993), -9007199254740993),
        ("smog_level", Decimal("9007199254740993.000000000"), 9007199254740993),
        ("smog_level", "0e-400", 0.0),
        ("customer", "True", True),
        ("customer", 0, False),
        ("customer", 1.0, True),
        ("customer", Decimal("0.0"), False),
        ("customer", "1.0", True),
        ("review_rating", "5.0", 5),
        ("review_rating", " 5 ", 5),
        ("trial_ends", 1454284800, "2016-02-01T00:00:00.000Z"),
        ("trial_ends", 1454284800.0, "2016-02-01T00:00:00.000Z"),
        ("trial_ends", Decimal("1454284800.25"), "2016-02-01T00:00:00.250Z"),
        ("trial_ends", "1454284800", "2016-02-01T00:00:00.000Z"),
        ("trial_ends", "1454284800000", "2016-02-01T00:00:00.000Z"),
        ("trial_ends", -473385600, "1955-01-01T00:00:00.000Z"),
        ("trial_ends", -473385600000, "1955-01-01T00:00:00.000Z"),
        ("trial_ends", "20160201", "2016-02-01"),
        ("trial_ends", "2016-W05-1", "2016-02-01"),
        ("trial_ends", "20160201T100000Z", "2016-02-01T10:00:00.000Z"),
        ("trial_ends", "2016-02-01 10:00:00", "2016-02-01 10:00:00"),
        ("trial_ends", "1970-01-01", "1970-01-01"),
        ("order_completed", True, "true"),
        ("order_completed", 5, "5"),
        ("order_completed", 5.5, "5.5"),
        ("order_completed", float("inf"), "inf"),
        ("order_completed", "", ""),
        ("order_completed", [1, {"a": "é"}], '[1, {"a": "é"}]'),
        ("order_completed", [Decimal("1.50"), (Decimal(7),), {"a": Decimal("0.1")}], '[1.50, [7], {"a": 0.1}]'),
        ("order_completed", ["1.50", {"a": None}, [True], Decimal("NaN")], '["1.50", {"a": null}, [true], "NaN"]'),
        ("order_completed", [datetime(2019, 3, 1, tzinfo=UTC)], '["2019-03-01T00:00:00.000Z"]'),
        ("trial_ends", "2019-03-01T05:06:07Z", "2019-03-01T05:06:07Z"),
        ("trial_ends", date(2019, 3, 1), "2019-03-01"),
        ("trial_ends", datetime(2019, 3, 1, 5, 6, 7, 8000, UTC), "2019-03-01T05:06:07.008Z"),
        ("trial_ends", 1551416767008, "2019-03-01T05:06:07.008Z"),
        ("trial_ends", "Fri, 01 Mar 2019 05:06:07 GMT", "2019-03-01T05:06:07.000Z"),
    ],
)
def test_values_take_the_type_of_the_field(trait: str, value: Any, expected: Any) -> None:
    [found] = values({trait: value})["custom"].values()
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("traits", "remarks"),
    [
        ({"review_rating": "five"}, {"review_rating": "left out: expected an integer, got 'five'"}),
        ({"review_rating": 5.5}, {"review_rating": "left out: expected an integer, got 5.5"}),
        ({"review_rating": True}, {"review_rating": "left out: expected an integer, got True"}),
        ({"review_rating": float("inf")}, {"review_rating": "left out: expected an integer, got inf"}),
        ({"review_rating": "9" * 5000}, {"review_rating": f"left out: expected an integer, got '{'9' * 56}..."}),
        ({"smog_level": [1]}, {"smog_level": "left out: expected a number, got an array"}),
        ({"smog_level": True}, {"smog_level": "left out: expected a number, got True"}),
        ({"smog_level": "high"}, {"smog_level": "left out: expected a number, got 'high'"}),
        ({"smog_level": float("nan")}, {"smog_level": "left out: expected a number, got nan"}),
        ({"customer": "perhaps"}, {"customer": "left out: expected true or false, got 'perhaps'"}),
        ({"unsubscribed": 7}, {"unsubscribed": "left out: expected true or false, got 7"}),
        ({"trial_ends": "soon"}, {"trial_ends": "left out: expected a date, got 'soon'"}),
        ({"trial_ends": True}, {"trial_ends": "left out: expected a date, got True"}),
        ({"trial_ends": [1]}, {"trial_ends": "left out: expected a date, got an array"}),
        ({"trial_ends": 0}, {"trial_ends": "left out: expected a date, got 0"}),
        ({"trial_ends": 86400}, {"trial_ends": "left out: expected a date, got 86400"}),
        ({"trial_ends": 20160201}, {"trial_ends": "left out: expected a date, got 20160201"}),
        ({"trial_ends": 1.5e15}, {"trial_ends": "left out: expected a date, got 1500000000000000.0"}),
        ({"trial_ends": float("inf")}, {"trial_ends": "left out: expected a date, got inf"}),
        ({"trial_ends": "2016-02-30"}, {"trial_ends": "left out: expected a date, got '2016-02-30'"}),
        ({"customer": 1.5}, {"customer": "left out: expected true or false, got 1.5"}),
        ({"review_rating": "5.5"}, {"review_rating": "left out: expected an integer, got '5.5'"}),
        ({"smog_level": 10**400}, {"smog_level": f"left out: expected a number, got 1{'0' * 56}..."}),
        ({"smog_level": "1e-400"}, {"smog_level": "left out: expected a number, got '1e-400'"}),
        ({"smog_level": "1_0"}, {"smog_level": "left out: expected a number, got '1_0'"}),
        ({"notify": "perhaps"}, {"notify": "left out: expected true or false, got 'perhaps'"}),
        ({"_NewEmail": None}, {"_NewEmail": "left out: expected a value for _NewEmail, got None"}),
        ({"_autopilot_list": " "}, {"_autopilot_list": "left out: expected a value for _autopilot_list, got ' '"}),
        ({"phones": [{"home": "1"}]}, {"phones": "left out: expected a text, got an object"}),
        ({"smog": "\ud800"}, {"smog": "left out: it holds half a surrogate pair, which is not text"}),
        ({"order_completed": b"x"}, {"order_completed": "left out: bytes are not text"}),
        ({"order_completed": [b"x"]}, {"order_completed": "left out: bytes are not text"}),
        ({"name": 5}, {"name": "left out: expected a name, got 5"}),
        ({"name": " "}, {"name": "left out: expected a name, got ' '"}),
    ],
)  # fmt: skip
def test_what_cannot_be_cast_is_left_out_and_said(traits: dict[str, Any], remarks: dict[str, str]) -> None:
    found = made({**traits, "title": "CEO"})
    assert found.values == {"Email": EMAIL, "Title": "CEO"}
    assert found.remarks == remarks


@pytest.mark.parametrize(
    ("value", "key", "sent"),
    [
        ("x", "string--Plan--Size", "x"),
        (5, "integer--Plan--Size", 5),
        (5.5, "float--Plan--Size", 5.5),
        (True, "boolean--Plan--Size", True),
        (Decimal(5), "integer--Plan--Size", 5),
        (Decimal("5.5"), "float--Plan--Size", 5.5),
        (Decimal("5E+1"), "float--Plan--Size", 50.0),
        (date(2019, 3, 1), "date--Plan--Size", "2019-03-01"),
        ([1, 2], "string--Plan--Size", "[1, 2]"),
    ],
)
def test_other_traits_go_by_their_own_name_and_type_and_are_said(value: Any, key: str, sent: Any) -> None:
    found = made({"Plan Size": value})
    assert found.values == {"Email": EMAIL, "custom": {key: sent}}
    assert found.unknown == ["Plan Size"]
    assert found.remarks == {"Plan Size": f"sent as {key}, for which the account has no field"}


def test_names_in_other_objects_and_names_that_are_mapped_are_no_standard_fields() -> None:
    assert values({"phones": {"x": [1, 2]}, "_autopilot_list": {"x": "1"}}) == {
        "custom": {"string--phones_x": "[1, 2]", "string--_autopilot_list_x": "1"}
    }
    assert values({"name": "Ann Lee"}, {"name": "Title"}) == {"Title": "Ann Lee"}


def test_a_field_of_exactly_that_name_comes_before_one_of_the_same_name_in_snake_case() -> None:
    fields = Fields([{"name": name, "fieldType": "integer"} for name in ("Plan Size", "planSize")])
    assert contact_fields(fields, EMAIL, {"planSize": 5, "plan_size": 6}).values["custom"] == {
        "integer--planSize": 5, "integer--Plan--Size": 6,
    }  # fmt: skip


def test_properties_are_written_where_a_setting_says_so_and_told_if_spelt_like_a_contacts_fields() -> None:
    mapped = values({}, {"_newEmail": "Order Completed"}, properties={"_newEmail": "new@example.com"})
    assert mapped == {"custom": {"string--Order--Completed": "new@example.com"}}
    assert made({}, properties={"email": f" {EMAIL.upper()}", "title": EMAIL}).unmapped == ["title"]
    assert made({}, properties={"email": "other@example.com"}).unmapped == ["email"]


def test_null_makes_no_field_and_clears_one_that_the_run_has_made() -> None:
    fields = Fields(CUSTOM)
    null = {"plan": None, "size": None}
    some = {"plan": 5, "size": b"x"}  # a value that is left out does not create a field
    found = [contact_fields(fields, EMAIL, traits) for traits in (null, some, null)]
    assert [made.values.get("custom") for made in found] == [None, {"integer--plan": 5}, {"integer--plan": None}]
    assert [made.unknown for made in found] == [["plan", "size"], ["plan"], ["plan", "size"]]
    left_out = "left out: the account has no field for it"
    assert found[0].remarks == {"plan": left_out, "size": left_out}


def test_nested_traits_are_flattened() -> None:
    assert values({"plan": {"size": {"max": 5}, "name": "pro"}, "empty": {}}) == {
        "custom": {"integer--plan_size_max": 5, "string--plan_name": "pro"}
    }
    assert made({"gone": "x"}).unknown == ["gone"]  # deleted fields do not count


CONTEXT = {"email": "old@example.com", "last_name": "Old", "phone": "2", "address": {"city": "A", "state": "C"}}


@pytest.mark.parametrize(
    ("traits", "context_traits", "expected"),
    [
        ({}, {"first_name": "Ann"}, {"FirstName": "Ann"}),
        ({"firstName": "Ann"}, {"first_name": "Bob", "fax": "1"}, {"FirstName": "Ann", "Fax": "1"}),
        ({"phone": None}, CONTEXT, {"Phone": None, "LastName": "Old", "MailingCity": "A", "MailingState": "C"}),
        (
            {"address": {"city": "B"}, "lastName": "New"},
            CONTEXT,
            {"LastName": "New", "Phone": "2", "MailingCity": "B", "MailingState": "C"},
        ),
        ({"name": "Ann Lee"}, {"firstName": "Bob"}, {"FirstName": "Ann", "LastName": "Lee"}),
        ({"lastName": "Lee"}, {"name": "Bob Ito"}, {"LastName": "Lee"}),
        ({"review_rating": 1}, {"Review Rating": 2}, {"custom": {"integer--Review--Rating": 1}}),
        ({"review_rating": "bad"}, {"review_rating": 2}, {"custom": {"integer--Review--Rating": 2}}),
        ({"plan": 5}, {"plan": "old", "size": 1}, {"custom": {"integer--plan": 5, "integer--size": 1}}),
    ],
)
def test_traits_come_before_those_of_the_context_field_by_field(
    traits: dict[str, Any], context_traits: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert values(traits, context_traits=context_traits) == expected


def test_traits_of_the_context_are_known_or_unknown_as_others() -> None:
    found = made({"plan": 5}, context_traits={"plan": 6, "nowhere": 1, "first_name": "Ann", "FirstName": "Bob"})
    assert found.unknown == ["plan", "nowhere"]
    assert found.remarks == {
        "plan": "sent as integer--plan, for which the account has no field",
        "nowhere": "sent as integer--nowhere, for which the account has no field",
        "FirstName": "left out: first_name has the field FirstName",
    }


@pytest.mark.parametrize(
    "trait", ["autopilot_list", "_Autopilot_List", "autopilotSessionId", "Notify", "notify_me", "zippy", "cities"]
)
def test_what_only_looks_like_a_known_trait_is_none(trait: str) -> None:
    assert made({trait: "x"}).unknown == [trait]


def test_a_setting_may_map_to_keys_of_autopilots_own() -> None:
    mapping = {"list": "_autopilot_list", "phones": "Order Completed", "quiet": "notify"}
    assert values({"list": "contactlist_1", "phones": ["1", "2"], "quiet": 0}, mapping) == {
        "_autopilot_list": "contactlist_1",
        "notify": False,
        "custom": {"string--Order--Completed": '["1", "2"]'},
    }


def test_of_two_traits_for_one_field_the_first_has_it() -> None:
    found = made({"first_name": "Ann", "firstName": "Bob"})
    assert found.values == {"Email": EMAIL, "FirstName": "Ann"}
    assert found.remarks == {"firstName": "left out: first_name has the field FirstName"}


def test_a_mapping_beats_the_spelling() -> None:
    mapping = {
        "address.city": "MailingCountry",
        "plan.size": "Review Rating",
        "rating": "smog_level",
        "city": "MailingCity",
    }
    traits = {"address": {"city": "B", "country": "D"}, "plan": {"size": "5"}, "rating": 1, "city": "C"}
    found = made(traits, mapping)
    assert found.values == {
        "Email": EMAIL,
        "MailingCountry": "B",
        "MailingCity": "C",
        "custom": {"integer--Review--Rating": 5, "float--Smog--Level": 1},
    }
    assert found.remarks == {"address.country": "left out: address.city has the field MailingCountry"}


@pytest.mark.parametrize(
    "traits", [{"email": " a@b.c "}, {"Email": "a@b.c"}, {"work": {"mail": "a@b.c"}, "email": "x@y.z"}]
)
def test_the_email_may_be_spelt_or_mapped(traits: dict[str, Any]) -> None:
    assert Fields(CUSTOM, {"work.mail": "Email"}).email(traits) == "a@b.c"
    assert Fields(CUSTOM).email({"email": 5, "name": "x"}) is None


@pytest.mark.parametrize(
    ("mapping", "user_id_field", "message"),
    [
        (
            {"a": "No Such"},
            None,
            (
                "destination.autopilothq.fields maps 'a' to 'No Such', but the account has no such field:"
                " create it in Autopilot, or correct the mapping"
            ),
        ),
        (
            {},
            "my id",
            (
                "destination.autopilothq.user_id_field names 'my id', but the account has no such custom field:"
                " create it in Autopilot, or correct the setting"
            ),
        ),
    ],
)
def test_settings_are_checked_against_the_account(
    mapping: dict[str, str], user_id_field: str | None, message: str
) -> None:
    with pytest.raises(InvalidSetting) as raised:
        Fields(CUSTOM, mapping, user_id_field)
    assert str(raised.value) == message


def test_the_user_id_is_kept_in_the_field_that_a_setting_names() -> None:
    assert values({}, user_id_field="user id", user_id="u1") == {"custom": {"string--user--id": "u1"}}
    assert values({}, user_id="u1") == {}
    beaten = made({"userId": "u2"}, user_id_field="user id", user_id="u1")
    assert beaten.values == {"Email": EMAIL, "custom": {"string--user--id": "u1"}}
    assert beaten.remarks == {"userId": "left out: user_id has the field string--user--id"}
    left_out = made({}, user_id_field="Review Rating", user_id="u1").remarks
    assert left_out == {"user_id": "left out: expected an integer, got 'u1'"}


@pytest.mark.parametrize("field", sorted(set(STANDARD_FIELDS) - {"Email", "_NewEmail"}))
def test_properties_spelt_like_standard_fields_are_not_taken(field: str) -> None:
    found = made({}, properties={field: "x"})
    assert (found.values, found.unmapped) == ({"Email": EMAIL}, [field])
    mapped = made({}, {field: "Order Completed"}, properties={field: "x"})
    assert mapped.values == {"Email": EMAIL, "custom": {"string--Order--Completed": "x"}}
    assert mapped.unmapped == []


def test_of_properties_a_new_address_is_taken_and_the_own_address_is_no_news() -> None:
    properties = {"email": EMAIL.upper(), "_NewEmail": "new@example.com", "name": "x", "city": "B", "notify": False}
    found = made({}, properties=properties)
    assert found.values == {"Email": EMAIL, "_NewEmail": "new@example.com"}
    assert found.unmapped == ["name", "city", "notify"]
    assert made({}, properties={"email": "other@example.com", "new_email": "x"}).unmapped == ["email", "new_email"]


def test_properties_go_where_they_are_mapped_or_the_account_has_a_field_and_beat_traits() -> None:
    properties = {"title": "Trousers", "plan": "x", "Review Rating": 2, "city": "B"}
    traits = {"review_rating": 5, "title": "CEO", "mailing_city": "A"}
    found = made(traits, {"city": "MailingCity"}, properties=properties)
    assert found.values == {
        "Email": EMAIL,
        "MailingCity": "B",
        "Title": "CEO",
        "custom": {"integer--Review--Rating": 2},
    }
    assert found.unknown == []
