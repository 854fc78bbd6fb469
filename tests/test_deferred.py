"""Which contacts are deferred, and to which address older messages go, without an account."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from autopilothq.destination.batch import EXTERNAL_ID, BatchItem
from autopilothq.destination.changes import AddressChanges
from autopilothq.destination.deferred import DeferredContacts
from autopilothq.destination.delivery_log import AddressChange, Delivery, DeliveryStatus, address_digest
from autopilothq.destination.plan import Planned

FAILED = DeliveryStatus(False, "failed", None, None)
BEGUN = datetime(2019, 3, 1, tzinfo=UTC)


class Account:
    """An account with contacts of these addresses; records which are requested."""

    def __init__(self, *emails: str) -> None:
        self.emails = emails
        self.asked: list[str] = []

    def contact(self, email: str) -> object | None:
        self.asked.append(email)
        return email if email in self.emails else None


def changes(*pairs: str, account: Account | None = None, unknown: str = "") -> AddressChanges:
    """Returns changes of addresses a day apart; `ab` is from A@b.c to B@b.c, by a message `ab`."""
    made = [
        AddressChange(pair, address_digest(of(pair[0])), of(pair[1]), pair not in unknown.split(), day(number))
        for number, pair in enumerate(pairs, 1)
    ]
    return AddressChanges(cast(Any, account), made)


def of(letter: str) -> str:
    return f"{letter.upper()}@b.c"


def day(number: int) -> datetime:
    return BEGUN + timedelta(days=number)


def planned(
    letter: str, before: DeliveryStatus | None = None, /, *, new: str = "", id_: str = "", **of_item: Any
) -> Planned:
    values: dict[str, Any] = {"Email": of(letter)} | ({"_NewEmail": of(new)} if new else {})
    values |= {"custom": {EXTERNAL_ID: id_}} if id_ else {}
    row = Delivery("m", "identify", None, None, None, of(letter))
    return Planned(BatchItem(of(letter).lower(), row, [], [], **of_item), values, before)


def addresses(found: list[Planned]) -> list[str]:
    """Returns the address of each item; checks that its key, row and values agree."""
    for item, values, _ in found:
        assert (item.key, item.row.email) == (values["Email"].lower(), values["Email"])
    return [values["Email"][0] for _, values, _ in found]


@pytest.mark.parametrize(
    ("one", "waits"),
    [
        (planned("x"), False),
        (planned("x", DeliveryStatus(False, "refused", None, None)), False),
        (planned("x", resent=True), False),
        (planned("x", FAILED), True),
        (planned("x", failed_before=True), True),
        (planned("x", alone=True), True),
        (planned("a"), True),  # it precedes a change of its address that an earlier run made
        (planned("a", FAILED, failed_before=True, alone=True, new="y"), False),
    ],
)
def test_who_waits(one: Planned, waits: bool) -> None:
    deferred = DeferredContacts(changes("ab"))
    assert deferred.defer(one) == waits
    assert deferred.release_all() == [one] * waits
    assert deferred.release_all() == []


def test_who_waits_behind_others() -> None:
    """Items to send again behind one that waits also wait, and so does everything behind a late one."""
    deferred = DeferredContacts(changes("ab"))
    assert deferred.defer(planned("x", FAILED))
    assert [deferred.defer(planned(who, resent=again)) for who, again in (("x", False), ("y", True), ("x", True))] == [
        False, False, True,
    ]  # fmt: skip
    assert deferred.defer(planned("a"))
    assert [deferred.defer(planned(who)) for who in "bx"] == [True, False]
    assert addresses(deferred.release_all()) == ["X", "X", "A", "B"]


@pytest.mark.parametrize(
    ("one", "released", "left"),
    [
        (planned("y"), [], ["X", "Z", "X", "W"]),
        (planned("x"), ["X", "X"], ["Z", "W"]),
        (planned("v", new="z"), ["Z"], ["X", "X", "W"]),
        (planned("v", id_="1"), ["W"], ["X", "Z", "X"]),
        (planned("v", new="z", id_="1"), ["Z", "W"], ["X", "X"]),
    ],
)
def test_who_is_sent_before_another_contact_of_the_same_person(
    one: Planned, released: list[str], left: list[str]
) -> None:
    deferred = DeferredContacts(changes())
    for each in (planned("x", FAILED), planned("z", FAILED), planned("x", alone=True), planned("w", FAILED, id_="1")):
        assert deferred.defer(each)
    assert addresses(deferred.release(one)) == released
    assert deferred.release(one) == []
    assert addresses(deferred.release_all()) == left


def test_persons_who_share_a_key_with_others_who_do_are_sent_together() -> None:
    deferred = DeferredContacts(changes())
    for each in (planned("x", FAILED, id_="1"), planned("y", FAILED, id_="1"), planned("y", FAILED, id_="2")):
        assert deferred.defer(each)
    assert deferred.defer(planned("z", FAILED, id_="3"))
    assert addresses(deferred.release(planned("w", id_="2"))) == ["X", "Y", "Y"]
    assert addresses(deferred.release_all()) == ["Z"]


def test_who_comes_late_is_sent_before_a_change_to_the_address_that_theirs_was_changed_to() -> None:
    deferred = DeferredContacts(changes("ab"))
    assert deferred.defer(planned("a"))
    assert addresses(deferred.release(planned("x", new="b"))) == ["A"]


def test_who_was_sent_before_another_contact_is_not_moved_any_more() -> None:
    deferred = DeferredContacts(changes())
    assert deferred.defer(planned("x", FAILED))
    assert deferred.defer(planned("y", FAILED))
    assert addresses(deferred.release(planned("x"))) == ["X"]
    deferred.move(of("x").lower(), of("n"))
    assert addresses(deferred.release_all()) == ["Y"]


def test_who_waits_moves_to_the_address_that_an_earlier_run_has_changed_theirs_to() -> None:
    deferred = DeferredContacts(changes())
    for each in (
        planned("x", FAILED),
        planned("y", FAILED),
        planned("x", FAILED, id_="1"),
        planned("z", FAILED, id_="1"),
    ):
        assert deferred.defer(each)
    deferred.move(of("x").lower(), of("n"))
    deferred.move(of("nobody").lower(), of("m"))
    deferred.move(of("x").lower(), of("m"))  # the address is somebody else's now
    assert addresses(deferred.release(planned("y"))) == ["Y"]
    assert addresses(deferred.release(planned("n"))) == ["N", "N", "Z"]


# ---- where somebody is by now ----------------------------------------------------------------------------------------


def test_an_address_leads_to_the_one_that_its_contact_has_by_now() -> None:
    known = changes("ab", "bc", "ad")
    assert [known.follow(email) for email in ("a@b.c", of("b"), of("c"), of("x"), "\ud800@b.c")] == [
        of("c"),
        of("c"),
        of("c"),
        of("x"),
        "\ud800@b.c",  # not valid in UTF-8, but possible in a message
    ]
    assert [known.since(of("a"), day(number)) for number in range(4)] == [of("c"), of("d"), of("d"), of("a")]
    assert [known.since(of("b"), day(number)) for number in (1, 2)] == [of("c"), of("b")]


def test_changes_that_the_items_have_reached_are_behind_them() -> None:
    known = changes("ab", "bc", "ad")
    assert [known.reach(message) for message in ("x", "ab", "ab")] == [None, of("c"), None]
    assert (known.follow(of("a")), known.follow(of("b")), known.since(of("a"), day(0))) == (of("d"), of("c"), of("c"))
    assert [known.reach(message) for message in ("bc", "ad")] == [of("c"), of("d")]
    assert (known.follow(of("a")), known.follow(of("b"))) == (of("a"), of("b"))
    assert changes("bc", "ab").reach("ab") == of("b")  # somebody else had that address before


@pytest.mark.parametrize(
    ("there", "asked", "made"),
    [(["b"], ["a", "b"], True), (["a", "b"], ["a"], False), ([], ["a", "b"], False)],
)
def test_the_account_is_asked_once_about_a_change_without_an_answer(
    there: list[str], asked: list[str], made: bool
) -> None:
    account = Account(*map(of, there))
    known = changes("ab", account=account, unknown="ab")
    assert known.reach("ab") is None
    assert [known.follow(of("a")) for _ in range(2)] == [of("b" if made else "a")] * 2
    assert account.asked == list(map(of, asked))
    assert known.reach("ab") == (of("b") if made else None)


def test_what_is_known_to_be_changed_is_not_asked_about() -> None:
    account = Account(of("n"))
    known = changes("ab", account=account)
    assert (known.was_made("ab", of("a"), of("b")), account.asked) == (True, [])
    assert (known.was_made("mn", of("m"), of("n")), known.was_made("mx", of("m"), of("x"))) == (True, False)
