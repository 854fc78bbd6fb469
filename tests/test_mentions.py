"""Texts are searched for ids with escapes decoded and emails only as a whole."""

from collections.abc import Collection

import duckdb
import pyarrow as pa
import pytest

from autopilothq.projection import suppression
from autopilothq.projection.mentions import contains_email, decode_letter_escapes, searchable, unescape
from autopilothq.segment.identity import Id, fold, hash_of

EMAIL = "a@b.de"
ALONE = [
    EMAIL, f"to {EMAIL}.", f"<{EMAIL}>", f"x {EMAIL}, y", f"{EMAIL}...", f"\u00a0{EMAIL}\n", f"x{EMAIL} {EMAIL}",
    f"@{EMAIL}", f"{EMAIL}{'.' * 64}x", f"{EMAIL}/", f"{EMAIL}.uk {EMAIL}. ", f"{EMAIL} x{EMAIL}",
]  # fmt: skip
PARTS = [
    "", "a@b.d", f"x{EMAIL}", f".{EMAIL}", f"x {EMAIL}x", f"{EMAIL}.uk", f"{EMAIL}1", f"{EMAIL}\u0301", f"{EMAIL}-x",
    f"{EMAIL}_", f"{EMAIL}@", f"{EMAIL}\u200c", f"{EMAIL}\u200d", f"{EMAIL}{'.' * 63}x", f"{EMAIL}X",
]  # fmt: skip


@pytest.mark.parametrize(("text", "alone"), [*((text, True) for text in ALONE), *((text, False) for text in PARTS)])
def test_an_email_is_found_only_as_a_whole(text: str, alone: bool) -> None:
    assert contains_email(text, EMAIL) is alone


def test_escapes_of_json_are_written_out() -> None:
    assert unescape(r"a\u0040b\n\t\r\b\f\"\/\\u0041\q\ud83d\ude00\ud83d!\u00e9") == (
        'a@b\n\t\r\b\f"/\\u0041q\N{GRINNING FACE}\ufffd!\u00e9'
    )
    assert unescape("a\\\nb\\") == "a\nb\\"
    assert searchable(r"Ada\u0040EXAMPLE.com \u0130\n") == fold("ada@example.com İ\n") == "ada@example.com i\u0307\n"


def test_letters_alone_are_written_out_of_lines() -> None:
    lines = [
        rb"\u0041\u001f\u0020\u0022\u005c\u005C\u0021\n\\u0042\ud83d\ude00", b"x\0y\0", b"plain",
        b"\\u0000\\u0043\0", b"",
    ]  # fmt: skip
    types = {"key": pa.int64(), "text": pa.large_string()}

    def written(texts: list[bytes], without: Collection[str] = ()) -> list[tuple[int, str]]:
        keys = range(1, len(texts) + 1)
        found = decode_letter_escapes(pa.array(keys), pa.array(texts, pa.large_binary()), without)
        assert {field.name: field.type for field in found.schema} == types
        return list(zip(found["key"].to_pylist(), found["text"].to_pylist(), strict=True))

    one = r"A\u001f \u0022\u005c\u005C!\n\\u0042" + "\N{GRINNING FACE}"
    assert written(lines) == [(2, "x\0y\0"), (3, "plain"), (5, ""), (1, one), (4, "\\u0000C\0")]
    plain = [(2, "xy"), (3, "plain"), (5, ""), (1, one), (4, "\\u0000C")]
    assert written(lines, suppression.NULS) == plain
    assert written([*lines, b"\xffa"], suppression.NULS) == [*plain[:3], (6, "\ufffda"), *plain[3:]]


IDS = [Id("email", "ada@example.com"), Id("user_id", "Ada"), Id("contact_id", "c1")]
TEXTS = [
    b"to ADA@example.com.", b"bada@example.com", b'{"userId":"Ada"}', b'{"userId":"ada"}', b'{"note":"Ada c1"}',
    b'{"contact_id":"c1","anonymousId":"x"}', b'"\\u0061da@example.com"', b"nobody", b'{"myId":"c1"}', b"x@example.com",
    b'{"userId":"gone"}', b'{"id":"gone","userId":"x"}', b"gone",
]  # fmt: skip


@pytest.mark.parametrize(("by_name", "mentioned", "suspected", "by_hash"), [
    (IDS, [0, 2, 5, 6, 10], [0, 1, 2, 3, 4, 5, 6, 8], [0, 1, 2, 3, 4, 5, 6, 8, 10, 11]),
    (IDS[1:], [0, 2, 5, 6, 10], [0, 1, 2, 3, 4, 5, 6, 8], [0, 1, 2, 3, 4, 5, 6, 8, 10, 11]),
    ([], [0, 2, 5, 6, 10], [], [0, 2, 5, 6, 8, 10, 11]),
    ([Id("user_id", '{"a":1}')], [0, 2, 5, 6, 10], [*range(13)], [*range(13)]),
])  # fmt: skip
def test_lines_that_may_be_of_a_person(
    by_name: list[Id], mentioned: list[int], suspected: list[int], by_hash: list[int]
) -> None:
    keys, texts = pa.array(range(len(TEXTS))), pa.array(TEXTS, pa.large_binary())
    pairs = [("salt", hash_of("salt", id_)) for id_ in (*IDS, Id("user_id", "gone"))]
    with duckdb.connect(config={"threads": 1}) as engine:
        suppression.register_suppressed(engine, pairs, sought=by_name)
        assert suppression.find_mentions(engine, keys, texts) == mentioned
        assert suppression.find_suspects(engine, keys, texts, by_hash=False) == suspected
        assert suppression.find_suspects(engine, keys, texts, by_hash=True) == by_hash
        texts = pa.array([f"mail from ada@example.com to {n}" for n in range(3)], pa.large_string())
        assert suppression.find_mentions(engine, keys[:3], texts) == [0, 1, 2]


@pytest.mark.parametrize(("by_name", "mentioned"), [([], []), ([Id("email", "a,b@x!y")], [0, 2, 4])])
def test_an_email_of_unusual_characters_is_found_among_words_where_its_name_is_known(
    by_name: list[Id], mentioned: list[int]
) -> None:
    lines = ["to <A,b@x!y>.", "xa,b@x!y", "xa,b@x!y <a,b@x!y>", "b@x!y", "<a\0,b\\x00@x!y>"]
    keys, texts = pa.array(range(5)), pa.array(lines, pa.large_string())
    with duckdb.connect(config={"threads": 1}) as engine:
        suppression.register_suppressed(engine, [("salt", hash_of("salt", Id("email", "a,b@x!y")))], sought=by_name)
        assert suppression.find_mentions(engine, keys, texts) == mentioned
        assert suppression.find_mentions(engine, keys[:0], texts[:0]) == []


def test_ids_of_a_column() -> None:
    with duckdb.connect(config={"threads": 1}) as engine:
        suppression.register_suppressed(engine, [])
        engine.execute("CREATE TABLE texts AS SELECT unnest(['A@b.DE', 'Ada', '']) AS id, 7 AS seq")
        found = {
            kinds: sorted(engine.sql(suppression.ids_of("texts", kinds)).fetchall())
            for kinds in (("email", "user_id"), ("contact_id",), ("email", "contact_id"))
        }
    email, ada, none = ("A@b.DE", 7, "A@b.DE"), ("Ada", 7, "Ada"), ("", 7, "")
    assert found == {
        ("email", "user_id"): [
            (*none, "user_id", ""), (*email, "email", "a@b.de"), (*ada, "user_id", "Ada"),
        ],
        ("contact_id",): [(*email, "contact_id", "A@b.DE"), (*ada, "contact_id", "Ada")],
        ("email", "contact_id"): [
            (*none, "contact_id", ""), (*email, "email", "a@b.de"), (*ada, "contact_id", "Ada"),
        ],
    }  # fmt: skip
