"""The suppression list with a key: its content, who reads it, and refusals without the key."""

import hashlib
import hmac
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from autopilothq.catalog import SUPPRESSIONS
from autopilothq.projection import suppression
from autopilothq.segment.identity import KEYED, HashedIds, Id, SuppressionKey, hash_of
from autopilothq.warehouses import suppression_key
from calling import Call, errors
from contract.duck import held, rows_in
from deleting import here
from fake_autopilot import FakeAutopilot, FakeProfiles
from faults.loads import line, track
from prepared import preparing
from searching import found_in
from shared_loads import command

SECRET = "0123456789012345678901234567890123456789"  # text, although it looks like a number
NAME = "SOURCES__AUTOPILOTHQ__SUPPRESSION_KEY"
NO_KEY = f"""\
Error: The suppression list was made with a key, but there is none in the setting {suppression_key.SETTING}: \
without it the messages of deleted persons would come back.
Set it in .dlt/secrets.toml, or {NAME} in the environment."""
OTHER_KEY = f"""\
Error: The suppression list was made with another key than the one in the setting {suppression_key.SETTING}: \
with this one the messages of deleted persons would come back.
Set the key that the list was made with."""
SHORT = """\
Error: Expected a key of at least 16 characters, but the setting sources.autopilothq.suppression_key has 5.
Make a random one: openssl rand -hex 32"""
MESSAGES: list[Any] = [
    track(number, userId=name, context={"traits": {"email": f"{name}@Example.com"}})
    for number, name in enumerate(("ada", "bob", "eve"))
]
SIGMA = line(track(9, userId="x", context={"traits": {"email": "ΣΊΣΥΦΟΣ@example.com"}}))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loads all messages; returns the folder."""
    with preparing(tmp_path_factory.mktemp("listed")) as home:
        Path("a.ndjson").write_bytes(b"".join(map(line, MESSAGES)))
        Path("sigma.ndjson").write_bytes(SIGMA)
        with held():
            said = command("load", "archive", "a.ndjson", "sigma.ndjson")
        assert said.status == 0, said.err
    return home


def test_the_key_is_documented() -> None:
    root = Path(__file__).parents[1]
    for page in ("pipelines/docs/how-to/forget.md", ".dlt/example.secrets.toml"):
        assert f"{suppression_key.SETTING.rpartition('.')[2]} = " in (root / page).read_text()


@pytest.mark.parametrize("secret", [SECRET, "k" * 64, "é" * 70])
def test_hashes_with_a_key(secret: str) -> None:
    key = SuppressionKey(secret.encode())
    assert secret not in repr(key)
    salt = suppression_key.new_salt(key)
    ada, bob = Id("email", "ada.é@example.com"), Id("user_id", "bob")
    hashed = hash_of(salt, ada, key)
    assert hashed == hmac.new(secret.encode(), f"{salt}\nemail\nada.é@example.com".encode(), hashlib.sha256).hexdigest()
    known = HashedIds([(salt, hashed), ("plain", hash_of("plain", bob))], key)
    assert (ada in known, bob in known, Id("email", "bob@example.com") in known) == (True, True, False)
    assert ada not in HashedIds(known.pairs(), SuppressionKey(b"another"))
    with pytest.raises(ValueError, match="there is no key"):
        _ = ada in HashedIds(known.pairs())
    with duckdb.connect() as engine:
        suppression.register_suppressed(engine, known.pairs(), key)
        texts = ["to ADA.é@example.com.", '{"userId":"bob"}', '{"userId":"ada"}', "eve@example.com"]
        assert suppression.find_mentions(engine, pa.array(range(4)), pa.array(texts, pa.large_string())) == [0, 1]
        engine.execute("CREATE TABLE ids AS SELECT unnest(?) AS person", [["email:Ada.é@example.com", "user_id:bob"]])
        engine.execute("UPDATE ids SET person = lower(person)")
        matched = f"SELECT DISTINCT person, kind, value FROM ({suppression.people_on_list('ids')}) ORDER BY ALL"
        assert engine.sql(matched).fetchall() == [
            ("email:ada.é@example.com", "email", "ada.é@example.com"), ("user_id:bob", "user_id", "bob"),
        ]  # fmt: skip


def test_a_list_gets_its_key_later(loaded: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(call, "--email", "ada@example.com")
    assert salts() == {"ada@example.com": "plain", "ada": "plain"}

    monkeypatch.setenv(NAME, SECRET)
    forget(call, "--user-id", "bob")
    assert salts() == {"ada@example.com": "plain", "ada": "plain", "bob@example.com": "keyed", "bob": "keyed"}
    again = load(call, "mixed.ndjson")
    assert (again["stored"], again["rejects"]) == (0, {"suppressed": 2})

    # A listed id gets a keyed hash once it is given as plain text; the person's own identifier gets one at once.
    made = forget(call, "--email", "ada@example.com")
    assert (made["suppressed"], [each["id"] for each in made["ids"]]) == (2, ["ada@example.com"])
    assert salts()["ada@example.com"] == "keyed"
    listed = rows_in(SUPPRESSIONS.name)
    keyed = {row["id"] for row in listed if row["salt"].startswith(KEYED)}
    assert {row["person"] for row in listed} <= keyed
    for _ in range(2):  # the second time, all are listed already
        made = forget(call, "--user-id", "ada")
        assert made["suppressed"] == 2
        assert salts() == dict.fromkeys(["ada@example.com", "ada", "bob@example.com", "bob"], "keyed")
    assert len(persons()) == 2
    assert load(call, "keyed.ndjson")["rejects"] == {"suppressed": 2}
    with FakeAutopilot(0) as account:
        configure(monkeypatch, "DESTINATION", account)
        Path("send.ndjson").write_bytes(
            b"".join(
                line({"type": "identify", "messageId": name, "traits": {"email": f"{name}@example.com"}})
                for name in ("ada", "eve")
            )
        )
        said = call("send", "messages", "send.ndjson")
    assert said.out == "2 messages: 1 delivered, 0 refused, 0 failed, 0 unknown, 1 of deleted persons\n"
    assert found_in(loaded, [SECRET]) == set()
    nothing_without_the_key(call, monkeypatch)


@pytest.mark.usefixtures("loaded")
def test_a_hash_of_an_earlier_release_is_no_second_id(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older lists have emails in Python's lower case. The number to confirm counts ids, whatever hashes they have."""
    forget(call, "--email", "nobody@example.com")
    early = [hash_of("plain", Id("email", "σίσυφος@example.com")), hash_of("plain", Id("contact_id", "gone"))]
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute(
            "INSERT INTO autopilothq._suppressions"
            " SELECT unnest(?), 'plain', unnest(['email', 'contact_id']), 'early', CURRENT_TIMESTAMP",
            [early],
        )
    monkeypatch.setenv(NAME, SECRET)
    for words, most in ((["--email", "Σίσυφος@example.com"], "2"), (["--contact-id", "gone"], "2")):
        said = call("forget", *words, "--max-ids", most)
        assert (said.status, errors(said)[0].partition(", ")[0]) == (1, "Error: Expected --confirm 3")
    made = forget(call, "--contact-id", "gone", "--confirm", "3")
    assert (made["suppressed"], [each["id"] for each in made["ids"]]) == (3, ["gone", "\u03c3...@example.com", "x"])
    listed = rows_in(SUPPRESSIONS.name)
    assert [row["id"] for row in listed if row["salt"] == "plain"] == []
    assert len([row for row in listed if row["salt"].startswith(KEYED)]) == 3
    assert load(call, "again.ndjson", "sigma.ndjson")["rejects"] == {"suppressed": 1}


def nothing_without_the_key(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks that every command that reads the list refuses and changes nothing without the key or with another one."""
    Path("people.txt").write_text("email:ada@example.com\n")
    shutil.copy("a.ndjson", "new.ndjson")
    with FakeAutopilot(3) as account, FakeProfiles() as profiles:
        configure(monkeypatch, "SOURCES", account)
        configure(monkeypatch, "DESTINATION", account)
        monkeypatch.setenv("SOURCES__AUTOPILOTHQ__PROFILES__TOKEN", profiles.token)
        monkeypatch.setenv("SOURCES__AUTOPILOTHQ__PROFILES__BASE_URL", profiles.base_url)
        commands: list[Sequence[str]] = [
            ["load", "archive", "new.ndjson"],
            ["load", "archive", "new.ndjson", "--dry-run"],
            ["load", "api"],
            ["load", "profiles", "--people", "people.txt", "--space", profiles.space],
            ["send", "messages", "send.ndjson"],
            ["forget", "--user-id", "eve", "--archive", "new.ndjson"],
        ]
        before = here()
        for number, words in enumerate(commands):
            secret, texts = ("another secret of 30 characters", OTHER_KEY) if number % 2 else (None, NO_KEY)
            assert refusal(call, monkeypatch, secret, words) == (1, texts), words
        monkeypatch.setenv(NAME, "short")
        said = call(*commands[-1])
        assert (said.status, "\n".join(errors(said))) == (1, SHORT)
        assert [request for request in (*account.requests, *profiles.requests) if request.method == "POST"] == []
    assert here() == before
    assert Path("new.ndjson").read_bytes() == Path("a.ndjson").read_bytes()


def refusal(call: Call, monkeypatch: pytest.MonkeyPatch, secret: str | None, words: Sequence[str]) -> tuple[int, str]:
    if secret is None:
        monkeypatch.delenv(NAME)
    else:
        monkeypatch.setenv(NAME, secret)
    said = call(*words)
    monkeypatch.setenv(NAME, SECRET)
    return said.status, "\n".join(errors(said))


def configure(monkeypatch: pytest.MonkeyPatch, part: str, account: FakeAutopilot) -> None:
    for name, value in {"API_KEY": account.key, "BASE_URL": account.base_url, "REQUESTS_PER_SECOND": "10000"}.items():
        monkeypatch.setenv(f"{part}__AUTOPILOTHQ__{name}", value)


def forget(call: Call, *words: str) -> dict[str, Any]:
    with held():
        said = call("forget", *words, "--json")
    assert said.status == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def load(call: Call, name: str, of: str = "a.ndjson") -> dict[str, Any]:
    """Loads a copy of a file; returns the report."""
    shutil.copy(of, name)
    with held():
        said = call("load", "archive", name, "--json")
    assert said.status == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def persons() -> set[str]:
    return {row["person"] for row in rows_in(SUPPRESSIONS.name)}


def salts() -> dict[str, str]:
    """Returns the ids in the list, each with the kind of its hash; fails if one is there twice."""
    found: dict[str, str] = {}
    key = SuppressionKey(SECRET.encode())
    for row in rows_in(SUPPRESSIONS.name):
        ids = [Id("email", f"{name}@example.com") for name in ("ada", "bob")]
        ids += [Id("user_id", name) for name in ("ada", "bob")]
        [id_] = [id_ for id_ in ids if hash_of(row["salt"], id_, key) == row["id"]]
        assert id_.value not in found
        found[id_.value] = "keyed" if row["salt"].startswith(KEYED) else "plain"
    return found
