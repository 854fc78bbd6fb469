"""Messages of every kind for property tests, as JSON text: odd spellings and values, colliding keys, broken lines."""

from collections.abc import Sequence

from hypothesis import strategies as st

NUMBERS = (
    "0", "-0", "1", "-12", "1.5", "1.10", "3.0", "1e5", "1E400", "-1.5e-7", "0.30000000000000004", "9007199254740993",
    "9223372036854775808", "12345678901234567890", "NaN", "-Infinity",
)  # fmt: skip
TEXTS = (
    '""', '" "', '"  "', '"a"', '"b"', '"true"', '"12"', '"1.10"', '"1.1"', '"2019-03-04T05:06:07Z"',
    '"2019-03-04"', '"é😀"',
    '"\\u00e9"', '"\\ud83d\\ude00"', '"a\\/b"', '"a\\\\u001fb"', '"\\u001f\\n\\"\'"', '"\\ud800"', '"\\u0000"',
    '"[x"', '"{x"',
    '"|"', '"NaN"', '"inf"', '",}"', '"\\t"', '"\u2028"', '"null"', '"Email Opened"', '"email_opened"',
)  # fmt: skip
KEYS = (
    "a", "A", "b", "a b", "a_b", "aB", "name", "plan", "Plan", "PLAN", "id", "_id", "timestamp", "receivedAt",
    "event", "_event",
    "Event", "context_ip", "email", "é", "", " ", "2fa", "campaign_id", "campaignId", "transactional",
    "contact_id", "traits",
    "a/b", "a~b", "a.b", "*", "0", "$", "a'b", "select", "\\u0000", "\\ud800x",
)  # fmt: skip
EVENTS = (
    '"Email Opened"', '"Email Opened"', '"email opened"', '"Email Clicked"', '"Demo Requested"', '"2FA Enabled"',
    '"Users"', '"名前"',
    '""', '"Email \\u004fpened"', '"A\\u001f"', '"\\ud800"', "null", "5", "[]",
)  # fmt: skip
CLOCKS = (
    '"2019-03-04T05:06:07.412Z"', '"2019-03-04T05:06:08Z"', '"2019-03-04T05:06:07.123456789+02:00"', '"2019-03-04"',
    '"2020-05-09 23:54:49.209808489 +0000 UTC m=+0.01"', '"Sat, 09 May 2020 23:54:49 GMT"', "1557446089",
    "1557446089123.5", "1e9",
    '"9999-12-31T23:59:59Z"', '"0000-01-01T00:00:00Z"', '"0001-01-01T00:00:00.000Z"', '"1969-12-31T00:00:00.000Z"',
    '""', "null",
    '"yesterday"', "true", "{}", '"2019-02-30T00:00:00Z"', '"2019-3-4T5:6:7Z"',
)  # fmt: skip
IDS = ('"u1"', '"u2"', "5", "1.10", "null", '""', '"  "', '"\\t"', "true", "[1]", "{}", '"[a"', '"\\u0000"', '"é"')
BROKEN = (
    "",
    " ",
    "\t",
    "{",
    "[]",
    "null",
    "5",
    '{"type":"track",}',
    '{"type":"track" , }',
    '{"type":"delete","userId":"1"}',
    "\ufeff{}",
)

scalars = st.sampled_from((*NUMBERS, *TEXTS, "null", "true", "false", "{}", "[]"))


def _object(items: Sequence[tuple[str, str]]) -> str:
    return "{" + ",".join(f'"{key}":{value}' for key, value in items) + "}"


def objects(values: st.SearchStrategy[str], keys: Sequence[str] = KEYS, most: int = 4) -> st.SearchStrategy[str]:
    """JSON objects, now and then with a key twice."""
    return st.lists(st.tuples(st.sampled_from(keys), values), max_size=most).map(_object)


arrays = st.lists(scalars, max_size=3).map(lambda items: "[" + ", ".join(items) + "]")
values = st.recursive(scalars | arrays, lambda inner: objects(inner, most=3), max_leaves=4)
bodies = objects(values) | st.sampled_from(("null", "{}", "5", "[]", '""'))
contexts = (
    st.tuples(objects(values, most=2), objects(scalars, ("email", "Email", "contact_id", "a"), most=2)).map(
        lambda parts: _object([("traits", parts[1]), ("library", '{"name":"x","version":1.10}'), ("more", parts[0])])
    )
    | objects(values, ("ip", "userAgent", "library_name", "library", "traits", "a"), most=3)
    | st.sampled_from(("null", "{}", "5", '{"traits":{"email":"a@b.c"}}'))
)
kinds = st.sampled_from(
    ('"track"',) * 8 + ('"identify"',) * 3 + ('"page"', '"screen"', '"group"', '"alias"', '"delete"', "null")
)


# What an ordinary message has in each field; a generated one differs in a few of them.
ORDINARY = {
    "type": '"track"',
    "event": '"Email Opened"',
    "userId": '"u1"',
    "receivedAt": '"2019-03-04T05:06:07.412Z"',
    "originalTimestamp": '"2019-03-04T05:06:07.000Z"',
    "context": '{"traits":{"email":"a@b.c","contact_id":"person_1"},"library":{"name":"x","version":"1.0"}}',
    "properties": '{"campaign_id":"campaign_1","transactional":false,"plan":"pro","seats":3,"price":9.5}',
    "version": "2",
}
# Objects that the engine can read as columns: their keys do not collide, only their values are odd.
plain_values = st.sampled_from((*NUMBERS, *TEXTS, "true", "false")) | arrays
plain_bodies = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("a", "b c", "campaign_id", "email_name", "transactional", "seats", "name", "id"), plain_values
    ),
).map(lambda chosen: _object(list(chosen.items())))
plain_contexts = st.tuples(plain_values, plain_values, plain_values).map(
    lambda found: f'{{"ip":{found[0]},"traits":{{"email":{found[1]},"age":{found[2]}}},"library":{{"version":"1.1"}}}}'
)
FIELDS: dict[str, st.SearchStrategy[str]] = {
    "type": kinds,
    "event": st.sampled_from(EVENTS),
    "userId": st.sampled_from(IDS),
    "anonymousId": st.sampled_from(IDS),
    "receivedAt": st.sampled_from(CLOCKS),
    "sentAt": st.sampled_from(CLOCKS),
    "originalTimestamp": st.sampled_from(CLOCKS),
    "timestamp": st.sampled_from(CLOCKS),
    "context": contexts | plain_contexts | plain_contexts,
    "properties": bodies | plain_bodies | plain_bodies,
    "traits": bodies | plain_bodies,
    "previousId": scalars,
    "groupId": scalars,
    "name": scalars,
    "category": scalars,
}


def messages(ids: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Messages as JSON text, with these ids: ordinary ones, and such as differ in up to three fields or in all."""

    def with_fields(chosen: frozenset[str]) -> st.SearchStrategy[str]:
        fields = {key: FIELDS[key] for key in sorted(chosen)}
        return st.tuples(st.fixed_dictionaries(fields), ids).map(
            lambda drawn: _object(list({**ORDINARY, **drawn[0], "messageId": drawn[1]}.items()))
        )

    few = st.frozensets(st.sampled_from(sorted(FIELDS)), max_size=3)
    identifies = few.map(lambda chosen: chosen | {"traits"})
    return (few | few | few | identifies).flatmap(with_fields)
