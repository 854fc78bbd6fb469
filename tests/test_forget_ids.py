"""Forgetting people whose ids are odd, or whose ids a stranger paired with those of others."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unicodedata import normalize

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopilothq.catalog import CONTEXT
from autopilothq.projection import mentions, suppression
from autopilothq.segment.identity import HashedIds, Id, fold, forms, hash_of, ids_in, ids_of_cells, lower_email
from autopilothq.segment.message import read_message
from calling import Call, errors
from deleting import forget, here, load, rows, write
from faults.loads import content, track
from prepared import preparing
from shared_loads import command

EMAILS = [
    "bounce=ada@example.com", "a|b@example.com", "{ada}@example.com", "a'da@example.com", '"a da"@example.com',
    "ada@उदाहरण.भारत", "ada@क्\u200dष.भारत", "İda@example.com", "ΣΊΣΥΦΟΣ@example.com", "Straße@example.com",
    "\u0131lgaz@example.com", "\u212aate@example.com", normalize("NFD", "Zoé@example.com"), "a\\b@example.com",
    "ada/x@example.com", "ada@[10.0.0.1]", "a(b)@example.com", "ada+😀@example.com", "<ada@example.net>",
    "ada@example.org, ada@example.edu",
]  # fmt: skip
USERS = ["a|b", "{}", '{"a":1}', '"q"', "a\\b", "a\tb", "नमस्ते", "true", "1.50", "é", "[x]", "a/b", "%s", "'; --"]
# None of these is the same person as those above.
OTHERS = [
    "xbounce=ada@example.com", "b@example.com", "da@example.com", "ida@example.com", "σίσυφο@example.com",
    "ilgaz@example.com", "ada@example.net.au", "ada@उदाहरण.भारती", "b", "Q", "a", "True", "1.5", "é ", "x",
]  # fmt: skip
ENGINE = duckdb.connect(config={"threads": 1})  # more threads are slower for so few rows
CONTEXT_NAMES = frozenset(column.name for column in CONTEXT)
ODD = [*EMAILS, *USERS]


def upper(text: str) -> str:
    """Returns another spelling of the same email."""
    return normalize("NFC", text).upper() if "@" in text and fold(text.upper()) == fold(text) else text


def lines_of(number: int, id_: str) -> list[bytes]:
    """An id in messages and in lines that are none, as it is and with its letters escaped."""
    messages = [
        track(number, userId=id_, event="Odd"),
        track(number + 1, userId=None, anonymousId=upper(id_), event="Odd"),
        # A line that takes the slow path.
        track(number + 2, userId=None, anonymousId="everybody", properties={"email": id_, "n": "a\0b"}, event="Odd"),
    ][: 3 if "@" in id_ else 1]
    rejected = [{"type": "delete", "userId": id_}]
    texts = [json.dumps(one, ensure_ascii=one is messages[0]) for one in (*messages, *rejected)]
    return [*(text.encode() for text in texts), b'{"userId":' + json.dumps(id_).encode() + b',"broken']


MINE = [one for number, id_ in enumerate(ODD) for one in lines_of(number * 10, id_)]
THEIRS = [one for number, id_ in enumerate(OTHERS, len(ODD)) for one in lines_of(number * 10, id_)]
WORDS = [word for id_ in ODD for word in ("--email" if "@" in id_ else "--user-id", id_)]


def test_ids_with_special_characters_are_deleted_everywhere_and_stay_deleted(call: Call) -> None:
    write("theirs.ndjson", THEIRS)
    write("all.ndjson", [one for pair in zip(MINE, [*THEIRS, *[b""] * 99], strict=False) for one in pair if one])
    Path("again.ndjson").write_bytes(b"".join(one + b"\n" for one in MINE))
    load(call, "theirs.ndjson", "--credentials", "theirs.duckdb", "--destination", "duckdb")
    load(call, "all.ndjson")
    found = forget(call, *WORDS, "--max-ids", "99", "--archive", "all.ndjson")
    assert (found["suppressed"], found["left"]) == (len(ODD), {})
    assert [shared["id"] for shared in found["shared"]] == ["anonymous_id everybody"]
    assert sorted(Path("all.ndjson").read_bytes().splitlines()) == sorted(THEIRS)
    assert rows(here()) == rows(content(Path("theirs.duckdb")))

    again = load(call, "again.ndjson")
    assert (again["stored"], again["rejects"]) == (0, {"suppressed": len(MINE)})
    assert {row["raw"] for row in here()["_rejects"].dicts() if row["file"].endswith("again.ndjson")} == {""}
    late = forget(call, "--user-id", "a|b", "--confirm", str(len(ODD)), "--archive", "again.ndjson")
    assert list(late["lines"].values()) == [len(MINE)]
    assert Path("again.ndjson").read_bytes() == b""


SIGNS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.text(SIGNS, min_size=1, max_size=8) | st.text('ab"\\/{}|@.\u0301\n\t é', min_size=1, max_size=8)
PATHS = ("userId", "anonymousId", "context.traits.email", "context.traits.contact_id", "properties.contact.id")


@given(st.lists(st.tuples(TEXTS.filter(str.strip), st.sampled_from(PATHS), st.booleans()), min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_no_line_of_a_person_is_missed(sent: list[tuple[str, str, bool]]) -> None:
    """Whatever the id is, its line is found, both by the id and by its hash alone."""
    lines: list[bytes] = []
    found: set[Id] = set()
    for id_, path, is_ascii in sent:
        value: Any = id_
        for key in reversed(path.split(".")[1:]):
            value = {key: value}
        message = {"type": "track", "event": "e", "userId": "u", path.partition(".")[0]: value}
        lines.append(json.dumps(message, ensure_ascii=is_ascii).encode())
        cells = read_message(lines[-1], CONTEXT_NAMES).cells
        found |= {one for one in ids_of_cells(cells) if one != Id("user_id", "u")}
    mine = [
        n for n, text in enumerate(lines) if found.intersection(ids_of_cells(read_message(text, CONTEXT_NAMES).cells))
    ]
    pairs = [("salt", hash_of("salt", id_)) for id_ in found]
    keys, texts = pa.array(range(len(lines)), pa.int64()), pa.array(lines, pa.large_binary())
    suppression.register_suppressed(ENGINE, pairs)
    assert set(mine) <= set(suppression.find_suspects(ENGINE, keys, texts, by_hash=True))
    suppression.register_suppressed(ENGINE, pairs, sought=found)
    assert set(mine) <= set(suppression.find_suspects(ENGINE, keys, texts, by_hash=False))


# ---- one folding of case --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folding() -> Iterator[Any]:
    """A DuckDB connection that folds emails."""
    with forgotten_engine([]) as engine:
        yield engine


@pytest.mark.parametrize("email", EMAILS)
def test_python_and_the_engine_fold_alike(folding: Any, email: str) -> None:
    spellings = {email, email.upper(), email.lower(), normalize("NFD", email), f" {email}\t"}
    for spelt in spellings:
        given = json.dumps({"a": spelt})
        [found] = folding.execute("SELECT fold_email($1), searchable($1), searchable($2)", [spelt, given]).fetchall()
        assert found == (
            next(ids_in(["email"], spelt)).value,
            mentions.searchable(spelt),
            mentions.searchable(given),
        )


def forgotten_engine(pairs: list[tuple[str, str]]) -> Any:
    engine = duckdb.connect()
    suppression.register_suppressed(engine, pairs)
    return engine


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_folding_twice_is_folding_once(text: str) -> None:
    assert fold(fold(text)) == fold(text) == fold(text.lower()) == fold(normalize("NFD", text))


@pytest.mark.parametrize("email", ["ΣΊΣΥΦΟΣ@example.com", "Straße@example.com", normalize("NFD", "Zoé@example.com")])
def test_hashes_of_earlier_releases_still_match(email: str) -> None:
    pairs = [("salt", hash_of("salt", Id("email", lower_email(email))))]
    assert len(forms("email", email)) == 2
    assert all(any(id_ in HashedIds(pairs) for id_ in ids_in(["email"], spelt)) for spelt in (email, email.lower()))
    with forgotten_engine(pairs) as engine:
        engine.execute("CREATE TABLE people (person VARCHAR)")
        engine.execute("INSERT INTO people VALUES (?), ('email:other@example.com')", [f"email:{email}"])
        assert engine.execute(f"SELECT person FROM ({suppression.people_on_list('people')})").fetchall() == [
            (f"email:{email}",)
        ]


# ---- whose they are -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loads people whose ids a stranger paired, and one with many devices; returns the folder."""
    people = [track(n, userId=f"u{n}", context={"traits": {"email": f"p{n}@example.com"}}) for n in range(90)]
    ada = [track(900, userId="ada", context={"traits": {"email": "ada@example.com"}}), track(901, userId="ada")]
    ada.append(track(902, userId="ada", anonymousId="phone"))
    sent = [track(100 + n, userId=f"u{n}", context={"traits": {"email": "ada@example.com"}}) for n in range(90)]
    sent += [track(200 + n, userId=f"u{n}", anonymousId="phone") for n in range(10)]
    eve = [track(n, userId="eve", anonymousId=f"device {n - 300}") for n in range(300, 307)]
    with preparing(tmp_path_factory.mktemp("paired")) as home:
        write("a.ndjson", [*people, *ada, *sent, *eve])
        load(command, "a.ndjson")
    return home


@pytest.mark.usefixtures("loaded")
def test_a_stranger_who_pairs_a_hundred_ids(call: Call) -> None:
    said = call("forget", "--email", "ada@example.com", "--archive", "a.ndjson")
    assert said.status == 0, said.err
    told = [text for text in said.out.splitlines() if text.startswith("Not followed:")]
    phone, crowd = told
    assert phone == (
        "Not followed: anonymous_id phone beside user_id ada, because user_id u0, user_id u1, user_id u2 and 7 more"
        " share a row with it too. If it is this person's, add --anonymous-id phone"
    )
    assert crowd == (
        "Not followed: 90 user_ids beside email ada@example.com, because there are too many to be one person's."
        " If it is this person's, add --user-id ID"
    )
    expected = {f"m-{n}" for n in (*range(90), *range(200, 210), *range(300, 307))}
    assert {row["id"] for row in here()["tracks"].dicts()} == expected
    assert len(Path("a.ndjson").read_bytes().splitlines()) == len(expected)


@pytest.mark.usefixtures("loaded")
def test_more_ids_than_agreed_to_change_nothing(call: Call) -> None:
    before, file = here(), Path("a.ndjson").read_bytes()
    for words, came, most in (
        ([], "none", " and --max-ids is 5"),
        (["--confirm", "7", "--max-ids", "8"], "--confirm 7", ""),
    ):
        said = call("forget", "--user-id", "eve", "--archive", "a.ndjson", *words)
        assert said.status == 1
        why = f"8 ids would be deleted as this person's{most}, but got {came}"
        assert errors(said) == [
            f"Error: Expected --confirm 8, because {why}. Nothing was changed.",
            "Check the ids, and how each was found. If all are one person's, add --confirm 8.",
        ]
        assert [text.split()[:7] for text in said.out.splitlines()[1:3]] == [
            ["user_id", "eve", "given", *said.out.splitlines()[1].split()[3:]],
            ["anonymous_id", "device", "0", "beside", "user_id", "eve", said.out.splitlines()[2].split()[-1]],
        ]
        assert [text.split() for text in said.out.splitlines()[-4:-1]] == [
            ["table", "rows", "would", "be", "removed"],
            ["email_opened", "7"],
            ["tracks", "7"],
        ]
    assert (here(), Path("a.ndjson").read_bytes()) == (before, file)
    assert forget(call, "--user-id", "eve", "--confirm", "8")["rows"] == {"email_opened": 7, "tracks": 7}


def test_postgres_is_not_asked_for_lower_case(call: Call, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres)
    monkeypatch.setenv("DESTINATION_TYPE", "postgres")
    mine = [track(n, userId=spelt) for n, spelt in enumerate([*EMAILS, *map(upper, EMAILS), *USERS])]
    write("a.ndjson", [*mine, *(track(n, userId=other) for n, other in enumerate(OTHERS, 100))])
    load(call, "a.ndjson")
    found = forget(call, *WORDS, "--max-ids", "99")
    assert found["rows"] == {"email_opened": len(mine), "tracks": len(mine)}
    assert sorted(row["user_id"] for row in content(postgres)["tracks"].dicts()) == sorted(OTHERS)
