"""Messages of every kind for property tests, as JSON text: odd spellings and values, colliding keys, broken lines."""

import itertools
import re
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
    """Returns a strategy for JSON objects, which sometimes have a key twice."""
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


# The fields of an ordinary message; generated ones differ in some. No value is, or looks like, a number whose digits
# may change, because a line with such a number is treated specially, whatever else it holds.
ORDINARY = {
    "type": '"track"',
    "event": '"Email Opened"',
    "userId": '"u1"',
    "receivedAt": '"2019-03-04T05:06:07.412Z"',
    "originalTimestamp": '"2019-03-04T05:06:07.000Z"',
    "context": '{"traits":{"email":"a@b.c","contact_id":"person_1"},"library":{"name":"x","version":"1.0.0"}}',
    "properties": '{"campaign_id":"campaign_1","transactional":false,"plan":"pro","seats":3,"price":9}',
    "version": "2",
}
# Objects that the engine can read as columns, because their keys do not collide; only their values are odd.
plain_values = st.sampled_from((*NUMBERS, *TEXTS, "true", "false")) | arrays
plain_bodies = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("a", "b c", "campaign_id", "emailId", "email_name", "transactional", "seats", "name", "id"), plain_values
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
    """Returns a strategy for messages with these ids, as JSON text: ordinary ones, some with up to four odd fields."""

    def with_fields(chosen: frozenset[str]) -> st.SearchStrategy[str]:
        fields = {key: FIELDS[key] for key in sorted(chosen)}
        return st.tuples(st.fixed_dictionaries(fields), ids).map(
            lambda drawn: _object(list({**ORDINARY, **drawn[0], "messageId": drawn[1]}.items()))
        )

    few = st.frozensets(st.sampled_from(sorted(FIELDS)), max_size=3)
    identifies = few.map(lambda chosen: chosen | {"traits"})
    return (few | few | few | identifies).flatmap(with_fields)


# ---- lines as bytes: what no sender's library writes ---------------------------------------------------------------

# Numbers in all spellings, which must keep their digits if they become text; then numbers that are not valid JSON.
SPELT = (
    "-0", "0.0", "-0.0", "1.10", "1e2", "1E+2", "1e16", "1e-7", "0.00001", "0.1e-3", "3.0", "2.5e0", "1e400", "-1e400",
    "1e-400", "100000000000000000000", "1234567890123456789012345", "9007199254740993", "9223372036854775807",
    "-9223372036854775809", "18446744073709551616", "0.1000000000000000055511151231257827", "123456789.123456789",
    "NaN", "Infinity", "-Infinity",
)  # fmt: skip
MISSPELT = ("01", "+1", "1.", ".5", "0x1F", "nan", "-NAN", "inf", "-Inf", "iNf", "infinity", "-", "1e", "True")
# Times that are almost in the usual notation, and some in other ones.
NEARLY = (
    '"219-03-04T05:06:27.412Z"', '"02019-03-04T05:06:27.412Z"', '"2019-03-04T05:06:7.412Z"', '"2019-03-04T05:06:07.4Z"',
    '"2019-03-04T05:06:07.4123456Z"', '"2019-03-04T24:00:00Z"', '"2019-03-04T23:59:60Z"', '"1551700807"',
    '"1551700807.1234567"',
    "1551700807.1234565", "1551700807.12345649999999999", "123456789012345678901.10", "1.10e30", "[1.10]",
    '{"a":[1e2]}', "1551700807123456789", "-0", "1e-3", "1e400", '"\\u0032019-03-04T05:06:07.412Z"',
    '"2019-03-04T05:06:07.412Z\\u0000"',
    '"Fri Jan 24 2020 06:29:02 GMT+0530 (India \\"Standard\\" Time)"', '"Fri, 24 Jan 2020 06:29:02 PDT"',
    '"2020-01-24 06:29:02 UTC"',
    '"\\ud800"', "[1]", '{"a":1}', "1.10",
)  # fmt: skip
# Keys that collide when they become columns, or that cannot become columns.
ALIKE = (
    "a", "A", " a", "a ", "a\\n", "\\u0061", "a.b", "a_b", "a__b", "_a", "1a", "x:a", "\\u0000", "a\\u0000",
    "\\ud800", "a\\udc00", "\\u00e9", "e\\u0301",
    "\\\"", "\\\\", "\\/", "'", ";", "campaign_id", "Campaign ID", "campaignId", "CAMPAIGN_ID", "transactional",
    "Transactional", "email",
    "id", "ID", "receivedAt", "received_at", "timestamp", "event", "Event", "userId", "user_id", "context_ip", "name",
    "category",
    "xmin", "_table_x", "tableoid", "uuid_ts", "loaded_at", "seq", "tie", "kind", "text", "odd", "again", "m",
    "K" * 130, "k" * 130,
)  # fmt: skip
TOP_KEYS = (
    "type", "Type", "event", "userId", "userid", "anonymousId", "messageId", "receivedAt", "sentAt", "timestamp",
    "originalTimestamp",
    "context", "Context", "properties", "Properties", "traits", "name", "category", "groupId", "previousId",
    "\\u0000", "\\u0074ype", "",
    "other", "integrations", "type ",
)  # fmt: skip
DEPTHS = (1, 2, 5, 20, 60, 99, 100, 101, 120, 200, 400, 1000, 3000)
# Bytes to insert into a line: broken UTF-8, white space that JSON does not allow, control characters, half escapes.
BYTES = (
    b"\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\xef\xbb\xbf",
    b"\xef\xbf\xbf", b"\xf0\x9f\x98\x80",
    b"\x00", b"\x01", b"\x08", b"\x0b", b"\x0c", b"\x1f", b"\x7f", b"\r", b"\t", b" ", b"\xc2\xa0", b"\xe2\x80\xa8",
    b"\xc2\x85",
    b"\\ud800", b"\\udc00\\ud800", b"\\u0000", b"\\u00", b"\\x41", b"\\", b'"', b"'", b",", b":", b"{", b"}", b"[",
    b"]", b"//", b"/**/", b"#",
    b"null", b"0", b"-", b"e", b"{}", b'"a":1,', b"\\u002c", b"\xef\xbb\xbf{", b"\x1e",
)  # fmt: skip


def _nested(of: tuple[str, int, str]) -> str:
    """Returns a value nested in `depth` arrays, objects, or both in turn."""
    kind, depth, inner = of
    opened, closed = {"[": ("[", "]"), "{": ('{"a":', "}"), "both": ('[{"a":', "}]")}[kind]
    return opened * depth + inner + closed * depth


numbers = st.sampled_from(SPELT * 9 + MISSPELT)
deep = st.tuples(st.sampled_from(("[", "{", "both")), st.sampled_from(DEPTHS), scalars | numbers).map(_nested)
odd_scalars = scalars | numbers | numbers | st.sampled_from((*CLOCKS, *NEARLY))
odd_arrays = st.recursive(
    st.lists(odd_scalars, max_size=3).map(lambda items: "[" + ", ".join(items) + "]"),
    lambda inner: st.lists(inner | objects(inner | odd_scalars, ALIKE, most=2), min_size=1, max_size=2).map(
        lambda items: "[" + " ,".join(items) + "]"
    ),
    max_leaves=3,
)
odd_values = st.recursive(
    odd_scalars | odd_scalars | odd_arrays, lambda inner: objects(inner, (*ALIKE, *KEYS), most=3), max_leaves=4
)
declared = objects(
    numbers | odd_values, ("campaign_id", "campaign_name", "transactional", "link_url", "Email ID", "a"), most=4
)
odd_bodies = objects(odd_values, (*ALIKE, *KEYS), most=4) | declared | declared
odd_contexts = objects(
    odd_values, ("ip", "IP", "userAgent", "user_agent", "library", "traits", "a"), most=3
) | st.tuples(
    objects(numbers | odd_values, ("email", "contact_id", "Email", "email "), most=2),
    objects(numbers | odd_values, ("name", "version", "NAME"), most=2),
).map(lambda parts: f'{{"traits":{parts[0]},"library":{parts[1]}}}')
ODD_FIELDS: dict[str, st.SearchStrategy[str]] = {
    **FIELDS,
    **dict.fromkeys(("receivedAt", "sentAt", "originalTimestamp", "timestamp"), st.sampled_from((*CLOCKS, *NEARLY))),
    **dict.fromkeys(("userId", "anonymousId", "previousId", "groupId", "name", "category"), odd_values),
    "event": st.sampled_from(EVENTS * 2) | odd_values,
    "context": odd_contexts | contexts,
    "properties": odd_bodies | bodies,
    "traits": odd_bodies | bodies,
}
_OFTEN = sorted(ODD_FIELDS.keys() - {"type"})


@st.composite
def odd_messages(draw: st.DrawFn) -> str:
    """Draws a message of any type as JSON text: some fields are odd, some keys come twice or in another order."""
    fields = {**ORDINARY, "type": draw(kinds)}
    for name in draw(st.lists(st.sampled_from(_OFTEN), min_size=1, max_size=5, unique=True)):
        fields[name] = draw(ODD_FIELDS[name])
    items = [*fields.items(), ("messageId", draw(st.sampled_from(('"$id"',) * 9 + IDS)))]
    if draw(st.integers(0, 5)) == 5:
        items += draw(st.lists(st.tuples(st.sampled_from(TOP_KEYS), odd_values), max_size=2))
    if draw(st.integers(0, 7)) == 7:
        items = draw(st.permutations(items))
    if draw(st.integers(0, 15)) == 15:
        items.insert(
            0, (draw(st.sampled_from(("properties", "traits", "context", "event", "userId", "a"))), draw(deep))
        )
    return _object(items)


# ---- each oddity at each place -------------------------------------------------------------------------------------

# Fields of a message with a `$` to be replaced by a value, by the name of that place.
PLACES = {
    "a property": {"properties": '{"a":$}'},
    "a property of text": {"properties": '{"campaign_id":$}'},
    "a property of truth": {"properties": '{"transactional":$}'},
    **{f"a property of type {of}": {"properties": f'{{"{of}":$}}'} for of in ("bigint", "double", "bool", "time")},
    "a field of context": {"context": '{"library":{"name":$}}'},
    "a field that is not declared": {"context": '{"b":$}'},
    "an email": {"context": '{"traits":{"email":$}}', "userId": "null"},
    "an array": {"properties": '{"c":[$,1]}'},
    "an array in an array": {"properties": '{"d":[[$]]}'},
    "an object in an array": {"properties": '{"e":[{"a":$}]}'},
    "an object of two keys in an array": {"properties": '{"g":[{"b":$,"a":1}]}'},
    "an object": {"properties": '{"f":{"a":$}}'},
    "a trait": {"type": '"identify"', "traits": '{"a":$}'},
    "a trait that repeats the user id": {"type": '"identify"', "userId": "$", "traits": '{"id":$}'},
    "a group's trait": {"type": '"group"', "traits": '{"a":$}'},
    "a page's name": {"type": '"page"', "name": "$"},
    "an alias": {"type": '"alias"', "previousId": "$"},
    **{key: {key: "$"} for key in ("userId", "anonymousId", "messageId", "event", "type", "context", "properties",
    "other")},
    **{key: {key: "$"} for key in ("receivedAt", "sentAt", "originalTimestamp", "timestamp")},
}  # fmt: skip


# Lines of an earlier load, which gives some columns their types.
TYPED = [
    _object([*(ORDINARY | {"properties": f'{{"{of}":{value}}}'}).items(), ("messageId", f'"typed {of}"')]).encode()
    for of, value in {"bigint": "1", "double": "1.5", "bool": "true", "time": '"2019-03-04T05:06:07Z"'}.items()
]


def _at(place: str, value: str, number: int) -> str:
    fields = {"messageId": f'"m{number:05}"', **ORDINARY, **PLACES[place]}
    return _object([(key, cell.replace("$", value)) for key, cell in fields.items()])


def each_value() -> list[bytes]:
    """Returns lines with each value at each place, for one load."""
    values = dict.fromkeys(
        (*NUMBERS, *SPELT, *MISSPELT, *TEXTS, *CLOCKS, *NEARLY, *USUAL, "{}", "[]", "[-0,1.10]", '{"a":{}}')
    )
    made = [(place, value) for place in PLACES for value in values]
    return [_at(place, value, number).encode() for number, (place, value) in enumerate(made)]


def each_key() -> list[bytes]:
    """Returns lines with each key at each place, alone and next to similar keys."""
    keys = dict.fromkeys((*ALIKE, *KEYS, *PLAIN_KEYS))
    objects = [f'{{"{key}":1{more}}}' for key in keys for more in ("", ',"a":2,"A":3', f',"{key}":4')]
    objects += [f'{{"{key}":{{"{key}":1,"a":[2]}}}}' for key in keys]
    made = [(place, of) for place in ("properties", "context", "a trait", "an object") for of in objects]
    lines = [_at(place, of, number).replace('{"a":{', '{"x":{') for number, (place, of) in enumerate(made)]
    plain = _at("a property", "1", len(lines))
    more = [f'{plain[:-1]},"{key}":{value}}}' for key in TOP_KEYS for value in ("null", '"track"', "{}", "1")]
    more += [f'{{"{key}":{value},{plain[1:]}' for key in TOP_KEYS for value in ("null", '"track"', "{}", "1")]
    return [line.encode() for line in (*lines, *(line.replace('"m', f'"n{n}m') for n, line in enumerate(more)))]


def each_depth() -> list[bytes]:
    """Returns lines with values nested as deeply as a reader allows, and deeper."""
    made = [
        (place, _nested((kind, depth, inner)))
        for place in ("a property", "event", "userId", "other", "context", "properties", "a trait", "sentAt")
        for kind in ("[", "{", "both")
        for depth in DEPTHS
        for inner in ("1", "1.10")
    ]
    return [_at(place, value, number).encode() for number, (place, value) in enumerate(made)]


def each_byte() -> list[bytes]:
    """Returns lines with stray bytes at every position between and inside the tokens of a line."""
    line = b'{"type":"track","event":"E","userId":"u","messageId":"m00000","properties":{"a":1.5,"b":[1,{}],"c":""}}'
    places = {at for word in re.finditer(rb"\w+|\W", line) for at in (word.start(), word.end(), word.start() + 1)}
    made = [line[:at] + odd + line[at:] for at in sorted(places) for odd in BYTES]
    return [line.replace(b"00000", b"%05d" % number) for number, line in enumerate(made)]


# ---- loads of all sorts --------------------------------------------------------------------------------------------

# Keys that each have a column of their own, and values as senders' libraries write them, most for the fast path.
PLAIN_KEYS = (
    "a", "b c", "d.e", "1st", "campaign_id", "campaign_name", "email_subject", "transactional", "link_url", "select",
    "x:y", "é1", "f'g", "h/i", "j~k", "*l", "timestamp", "context_m", "seq", "tie", "event", "email", "n\u00e9",
)  # fmt: skip
USUAL = (
    "1", "0", "-7", "1.5", "-0.25", "12345678901", "true", "false", "null", '"x"', '""', '"12"', '"1.5"', '"true"',
    "[]",
    '[1,"a",null]', '["b"]', '"2019-03-04T05:06:07Z"', '"2019-03-04T05:06:07.5+02:00"', '"a,b"', '"{"', '"é😀"',
    '"Email Opened"',
)  # fmt: skip
usual_scalars = st.sampled_from(USUAL)


@st.composite
def alike(draw: st.DrawFn) -> list[str]:
    """Draws messages of one shape, some of whose values are odd."""
    keys = draw(st.lists(st.sampled_from(PLAIN_KEYS), min_size=1, max_size=6, unique=True))
    inner = draw(st.sampled_from((None,) * 9 + tuple(keys)))
    fields = ORDINARY | {"type": draw(st.sampled_from(('"track"',) * 8 + ('"identify"',) * 3 + ('"page"',)))}
    fields["event"] = draw(st.sampled_from(EVENTS[:8]))
    odd_at = draw(st.sampled_from((*keys, "sentAt", "timestamp", "userId", "context", "messageId")))
    found = []
    for _ in range(draw(st.integers(3, 14))):
        cells = {key: draw(usual_scalars) for key in keys}
        more = {"messageId": '"$id"', "sentAt": draw(st.sampled_from((*CLOCKS[:4], "null")))}
        if draw(st.integers(0, 5)) == 5:
            at = cells if odd_at in cells else more
            at[odd_at] = draw(ODD_FIELDS.get(odd_at, odd_values if odd_at in cells else st.sampled_from(IDS)))
        if inner:
            cells[inner] = f'{{"b":{cells[inner]},"C":1}}'
        body = _object(list(cells.items()))
        found.append(_object([*(fields | {"properties": body, "traits": body} | more).items()]))
    return found


@st.composite
def odd_lines(draw: st.DrawFn, shapes: int = 3, others: int = 10) -> list[bytes]:
    """Draws the lines of a load: messages of one shape, odd, usual and broken ones, each with an id of its own."""
    line = st.sampled_from(["odd"] * 12 + ["usual"] * 5 + ["broken"]).flatmap(
        {"odd": odd_messages(), "usual": messages(st.just('"$id"')), "broken": st.sampled_from(BROKEN)}.__getitem__
    )
    groups = draw(st.lists(alike(), min_size=shapes, max_size=shapes))
    lines = [*groups[0], *draw(st.lists(line, min_size=others // 2, max_size=others)), *itertools.chain(*groups[1:])]
    return [_spoilt(draw, line.replace("$id", f"m{number:03}").encode()) for number, line in enumerate(lines)]


def _spoilt(draw: st.DrawFn, line: bytes) -> bytes:
    for _ in range(draw(st.sampled_from((0,) * 12 + (1, 1, 2)))):
        at, over = draw(st.integers(0, len(line))), draw(st.sampled_from((0, 0, 1)))
        line = line[:at] + draw(st.sampled_from(BYTES)) + line[at + over :]
    return line.replace(b"\n", b"\r")
