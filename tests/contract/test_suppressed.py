"""Messages of deleted persons are rejected, and nothing of them is kept (docs/contract/warehouse.md)."""

import hashlib
import json

import pytest

from autopilothq.catalog import REJECT_REASONS
from autopilothq.projection import deduplicate, shapes
from autopilothq.segment.identity import KEYED, HashedIds, Id, SuppressionKey, hash_of
from contract.loading import NOW, Store, identify, message, to_line

KEY = SuppressionKey(b"0123456789abcdef")
ADA = {
    "plain": [Id("user_id", "ada"), Id("contact_id", "person_1"), Id("user_id", "no@kind")],
    f"{KEYED}salt": [Id("email", "ada@example.com"), Id("anonymous_id", "phone"), Id("user_id", "ada")],
}
HASHES = HashedIds([(salt, hash_of(salt, id_, KEY)) for salt, ids in ADA.items() for id_ in ids], KEY)
MINE = [
    message(messageId="user", userId="ada"),
    message(messageId="email", userId="Ada@Example.com"),
    message(messageId="anonymous", userId=None, anonymousId="phone"),
    message(messageId="traits", userId="x", context={"traits": {"email": "ADA@example.com", "contact_id": "person_1"}}),
    message(messageId="contact", userId="x", context={"traits": {"contact_id": "person_1"}}),
    message(messageId="previous", type="alias", userId="x", previousId="phone"),
    identify(messageId="own", userId="x", traits={"email": "ada@example.com"}),
    identify(messageId="record", userId="x", traits={"contact_id": "person_1"}),
    message(messageId="more", userId="ada", anonymousId="phone", context={"traits": {"email": "ada@example.com"}}),
]
THEIRS = [
    message(messageId="1", userId="Ada"),
    message(messageId="2", userId="phone", properties={"note": "ada"}),
    message(messageId="3", userId="x", context={"traits": {"email": "bada@example.com", "contact_id": "person_10"}}),
    message(messageId="4", userId="no@kind"),
    identify(messageId="5", userId='"ada"', traits={"email": "x@example.com", "contact_id": "ada"}),
]
BROKEN_MINE = '{"userId":"ada"'
BROKEN = '{"userId":"bob"'


@pytest.mark.parametrize("leaves", [0, 200], ids=["line by line", "by the engine"])
def test_messages_are_rejected_by_every_id_of_deleted_persons(leaves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "MAX_LEAVES", leaves)
    monkeypatch.setattr(deduplicate, "REJECTS_PER_READ", 1)
    store = Store()
    store.suppressed = HASHES
    found = store.run([*MINE, *THEIRS, BROKEN_MINE, BROKEN, *MINE[::-1]])  # duplicates have the row of the first
    ids = {row["id"] for name in ("tracks", "identifies") for row in found[name]}
    assert ids == {one["messageId"] for one in THEIRS}
    assert "aliases" not in found
    assert "ada" not in json.dumps([row for row in found["_rejects"] if row["raw"] != BROKEN], default=str)
    places = {one["messageId"]: at for at, one in enumerate(MINE, 1)}
    digests = {hashlib.sha256(f"suppressed{id_}".encode()).hexdigest(): at for id_, at in places.items()}
    digests[hashlib.sha256(to_line(BROKEN_MINE)).hexdigest()] = len(MINE) + len(THEIRS) + 1
    rows = [row for row in found["_rejects"] if row["reason"] == "suppressed"]
    assert rows == [
        {
            "id": digest,
            "file": "file 0",
            "line": at,
            "reason": "suppressed",
            "message": REJECT_REASONS["suppressed"],
            "raw": "",
            "rejected_at": NOW.replace(day=3),
        }
        for digest, at in sorted(digests.items())
    ]
    assert [(row["line"], row["raw"]) for row in found["_rejects"] if row not in rows] == [(16, BROKEN)]
    assert [count[1:5] for count in store.audit] == [(25, 5, 0, 20)]

    # The same lines in another file are rejected again and keep their rows.
    again = store.run([], [BROKEN_MINE, *MINE])
    assert again == found
    assert [count[:5] for count in store.audit] == [(1, 10, 0, 0, 10)]
