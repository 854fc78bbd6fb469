"""Which requests a batch of contacts needs if some make the server fail, and their outcomes, without a server."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any, cast

import pytest

from autopilothq.clients.autopilot import Upserted
from autopilothq.destination import halving
from autopilothq.destination.halving import ContactWriter
from autopilothq.destination.kind import AUTOPILOT
from autopilothq.destination.requests import CircuitBreaker, Outcome, RunStopped
from autopilothq.errors import (
    ApiError,
    ContactLimit,
    NotAuthorized,
    NotFound,
    OutcomeUnknown,
    RequestRejected,
    Unavailable,
    UnexpectedResponse,
)

AT = "POST /contacts"
DELIVERED = Outcome("delivered", AT, 200, None, 1)
FAILED = Outcome("failed", AT, 500, "Oops.", 3)


class Account:
    """An account that records each request's contacts (letters) and limit of tries, and fails for some contacts."""

    attempts = 1

    def __init__(self, bad: str = "", refused: str = "", statuses: Sequence[int | ApiError | None] = ()) -> None:
        self.bad, self.refused = bad, refused
        self.statuses = list(statuses)  # of the next requests; None: no answer
        self.asked: list[tuple[str, int | None]] = []
        self.known = "abcdefgh"
        self.most = 8  # contacts in a request
        self.unnamed, self.without_id = "", ""  # what its answers lack
        self.reasons: dict[str, str] = {}
        self.tries: int | None = None

    @contextmanager
    def limit_tries(self, tries: int) -> Iterator[None]:
        self.tries = tries
        yield
        self.tries = None

    def contact(self, email: str) -> object | None:
        self.asked.append((f"?{email[0]}", self.tries))
        if "?" in self.bad:
            raise NotFound("no such path")
        return {} if email[0].lower() in self.known else None

    def upsert_many(self, contacts: Sequence[Mapping[str, Any]]) -> Upserted:
        some = "".join(contact["Email"][0] for contact in contacts)
        self.asked.append((some, self.tries))
        if self.statuses:
            status = self.statuses.pop(0)
            if isinstance(status, ApiError):
                raise status
            if status != 200:
                raise Unavailable("Gone.", status=status, attempts=3)
        if len(some) > self.most:
            raise Unavailable("x", status=500, server_message="Oops.", attempts=3)
        if set(some.lower()) & set(self.bad):
            raise Unavailable("x", status=500, server_message="Oops.", attempts=3)
        if set(some.lower()) & set(self.refused):
            raise RequestRejected("x", status=400, server_message="No.", attempts=1)
        named = {f" {one}@B.C": "id" if one != self.without_id else "" for one in some if one not in self.unnamed}
        return Upserted(named, {key: why for key, why in self.reasons.items() if key[0] in some.lower()})


class Run:
    """A writer for an account, and the outcomes of its contacts."""

    def __init__(self, account: Account | None = None) -> None:
        self.account = account or Account()
        self.breaker = CircuitBreaker(cast(Any, self.account))
        self.writer = ContactWriter(cast(Any, self.account), self.breaker, AUTOPILOT)

    def write(self, some: str, before: str = "") -> str:
        """Writes contacts by their letters; returns the letters of those that were delivered."""
        self.outcomes: dict[str, Outcome] = {}
        self.account.asked.clear()
        contacts = {key_of(letter): {"Email": f"{letter}@b.c"} for letter in some}
        self.writer.write(contacts, self.outcomes, [key_of(letter) for letter in before])
        assert self.outcomes.keys() == contacts.keys()
        return "".join(letter for letter in some if self.outcomes[key_of(letter)].status == "delivered")

    def asked(self) -> str:
        """Returns the requests, each with its limit of tries if it has one."""
        return " ".join(f"{some}{tries or ''}" for some, tries in self.account.asked)

    def bad(self, some: str) -> str:
        return "".join(one for one in some if self.writer.is_bad(key_of(one), self.outcomes, failed_before=False))


def key_of(letter: str) -> str:
    return f"{letter.lower()}@b.c"


@pytest.mark.parametrize(
    ("account", "asked", "delivered"),
    [
        (Account(), "ABCDEFGH", "ABCDEFGH"),
        (Account("a"), "ABCDEFGH ABCD2 EFGH2 AB2 CD2 A B", "BCDEFGH"),
        (Account("h"), "ABCDEFGH ABCD2 EFGH2 EF2 GH2 G H", "ABCDEFG"),
        (Account(refused="c"), "ABCDEFGH ABCD2 EFGH2 AB2 CD2 C D", "ABDEFGH"),
        # A missing answer, or one that asks to wait, is not a contact's fault.
        (Account("a", statuses=[500, 429]), "ABCDEFGH ABCD2 ABCD EFGH2 AB2 CD2 A B", "BCDEFGH"),
        (Account("a", statuses=[599, None]), "ABCDEFGH ABCD2 ABCD EFGH2 AB2 CD2 A B", "BCDEFGH"),
    ],
)
def test_a_batch_is_halved_until_the_bad_ones_are_found(account: Account, asked: str, delivered: str) -> None:
    run = Run(account)
    assert run.write("ABCDEFGH") == delivered
    assert run.asked() == asked
    assert run.outcomes == {
        key_of(one): DELIVERED
        if one in delivered
        else (Outcome("refused", AT, 400, "No.", 1) if account.refused else FAILED)
        for one in "ABCDEFGH"
    }
    assert run.bad("ABCDEFGH") == "".join(one for one in "ABCDEFGH" if one.lower() in account.bad)
    assert not run.breaker.is_open


@pytest.mark.parametrize(
    ("before", "well", "asked"),
    [
        ("", "", "B"),  # no contact was written that could be tried again
        ("A", "", "B ?A A"),
        ("AC", "", "B ?C C"),  # the last one that was written
        ("A", "forgotten", "B"),
        ("A", "gone", "B ?A"),
        ("A", "not asked", "B ?A"),
        ("A", "refused", "B ?A A"),
        ("C", "another forgotten", "B ?C C"),
    ],
)
def test_a_failure_counts_unless_a_contact_that_was_written_is_written_still(
    before: str, well: str, asked: str
) -> None:
    run = Run(Account("b"))
    if before:
        run.write(before)
    if "forgotten" in well:
        run.writer.forget("a@B.C")
    run.account.known = "" if well == "gone" else run.account.known
    run.account.bad += "?" if well == "not asked" else ""
    run.account.refused = "a" if well == "refused" else ""
    run.writer = ContactWriter(cast(Any, run.account), run.breaker, AUTOPILOT, run.writer.last_written)
    run.write("B", before="B")
    assert run.asked() == asked
    is_well = asked.endswith((" A", " C"))
    assert (run.outcomes, run.bad("B")) == ({"b@b.c": FAILED}, "B" if is_well else "")
    run.account.bad += "xyz"
    for one in "BX" if not is_well else "":  # the same contact counts once
        run.write(one)
    if not is_well:
        with pytest.raises(Unavailable) as raised:
            run.write("Y")
        assert (run.breaker.is_open, run.breaker.cause) == (True, raised.value)


def test_what_nobody_answers_counts_at_once() -> None:
    run = Run(Account(statuses=[None]))
    run.write("A")
    assert (run.asked(), run.outcomes) == ("A", {"a@b.c": Outcome("failed", AT, None, "Gone.", 3)})
    assert run.bad("A") == ""


def test_an_outage_is_told_from_many_bad_ones() -> None:
    run = Run(Account("abcdefgh"))
    with pytest.raises(ApiError):
        run.write("ABCDEFGH")
    first, left, right, *others = run.account.asked
    assert (first, left, right) == (("ABCDEFGH", None), ("ABCD", 2), ("EFGH", 2))
    assert [(len(some), tries) for some, tries in others] == [(1, None)] * 3
    assert len(dict(others)) == 3
    assert run.breaker.is_open
    assert run.breaker.cause is not None


def test_those_that_failed_before_are_not_looked_through_while_the_service_is_well() -> None:
    run = Run(Account("bcde"))
    run.write("A")
    assert run.write("BCDE", before="BCDE") == ""
    asked = run.account.asked
    assert [(some if len(some) > 2 else len(some), tries) for some, tries in asked[:3]] == [
        ("BCDE", None), (2, 2), (2, 2),
    ]  # fmt: skip
    assert [tries for _, tries in asked[3:]] == [None] * 5
    assert asked[-2:] == [("?A", None), ("A", None)]
    assert run.bad("BCDE") == "BCDE"
    assert run.write("BC") == ""  # they stay failed
    assert run.bad("BC") == "BC"
    run.account.bad += "f"
    for one, before in (("F", "F"), ("B", "")):
        run.write(one, before)
        assert run.bad(one) == one


def test_an_outage_that_begins_later_is_told_too() -> None:
    run = Run(Account(statuses=[500, 500, 200, *[503] * 20]))
    with pytest.raises(Unavailable, match="Gone") as raised:
        run.write("ABCDEFGH")
    assert run.asked() == "ABCDEFGH ABCD2 EFGH2 AB2 CD2 A B E ?H H"  # E was delivered
    assert run.breaker.cause is raised.value
    two = Run(Account("ab"))  # no written contact is left to try alone
    with pytest.raises(Unavailable):
        two.write("AB")
    assert two.asked() == "AB A B"


def test_what_nobody_answers_is_not_looked_through() -> None:
    run = Run(Account(statuses=[500, None, None, None, None]))
    assert (run.write("ABCDEFGH"), run.asked()) == ("", "ABCDEFGH ABCD2 ABCD EFGH2 EFGH")
    assert not run.breaker.is_open


@pytest.mark.parametrize(
    ("before", "asked"),
    [
        # C is chosen and sent again alone; later A, because it comes first.
        ("ABCDEFGH", "ABCDEFGH ABCD2 EFGH2 C AB2 CD2 C A B C D EF2 GH2 A E F G H"),
        ("ABCD", "ABCDEFGH ABCD2 EFGH2 C AB2 CD2 C A B C D EF2 GH2 E F G H"),
        ("", "ABCDEFGH ABCD2 EFGH2 C AB2 CD2 A B C D EF2 GH2 E F G H"),
    ],
)
def test_one_that_was_written_alone_tells_of_others_that_the_service_is_well(
    before: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halving, "SystemRandom", lambda: Random(1))
    run = Run()
    run.account.most = 1
    assert (run.write("ABCDEFGH", before), run.asked()) == ("ABCDEFGH", asked)


def test_those_that_failed_alone_are_not_chosen_to_tell_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halving, "SystemRandom", lambda: Random(1))
    run = Run(Account("bcdefghi"))
    run.account.known += "a"
    run.write("A")
    assert run.write("BCDEFGHI", before="BCDE") == ""
    # Each time, A shows that the service works.
    assert run.asked() == (
        "BCDEFGHI BCDE2 FGHI2 D F B ?A A BC2 DE2 D F B ?A A B C E H D ?A A D E G H F ?A A FG2 HI2 F G H I ?A A H I"
    )
    assert run.bad("BCDEFGHI") == ""  # nothing was written with them, which would confirm it


def test_what_an_answer_says_of_single_contacts() -> None:
    run = Run()
    run.account.unnamed, run.account.without_id, run.account.reasons = "BD", "E", {"c@b.c": "No.", "d@b.c": "Nor this."}
    assert (run.write("ABCDE"), run.asked()) == ("A", "ABCDE")
    unnamed = DELIVERED._replace(
        status="failed", message="Autopilot's answer does not name this contact: it was not written"
    )
    refused = DELIVERED._replace(status="refused", message="No.")
    others = {"c@b.c": refused, "d@b.c": refused._replace(message="Nor this."), "e@b.c": unnamed}
    assert run.outcomes == {"a@b.c": DELIVERED, "b@b.c": unnamed, **others}
    assert run.bad("ABCDE") == ""
    assert run.writer.is_bad("b@b.c", run.outcomes, failed_before=True)


def test_those_of_a_batch_that_is_refused_are_not_until_each_was_tried() -> None:
    run = Run(Account(statuses=[RequestRejected("x", status=400), NotAuthorized("y")]))
    with pytest.raises(NotAuthorized):
        run.write("AB")
    assert run.outcomes == dict.fromkeys(("a@b.c", "b@b.c"), Outcome("failed", AT, 400, "x", 0))


def test_a_batch_of_two_is_halved_too() -> None:
    run = Run(Account("b"))
    assert (run.write("AB"), run.asked(), run.bad("AB")) == ("A", "AB A B", "B")
    run = Run(Account("b", refused="a"))  # a refusal also shows that the service works
    assert (run.write("AB"), run.asked(), run.bad("AB")) == ("", "AB A B", "B")


@pytest.mark.parametrize(
    ("error", "status", "if_once"),
    [
        (UnexpectedResponse("x", status=200), "failed", "unknown"),
        (UnexpectedResponse("x", status=299), "failed", "unknown"),
        (UnexpectedResponse("x", status=300), "failed", "failed"),
        (UnexpectedResponse("x"), "failed", "failed"),
        (Unavailable("x", status=500), "failed", "failed"),
        (Unavailable("x", status=200), "failed", "failed"),
        (OutcomeUnknown("x"), "unknown", "unknown"),
        (RequestRejected("x", status=400), "refused", "refused"),
    ],
)
def test_what_became_of_a_request_that_ended_with_an_error(error: ApiError, status: str, if_once: str) -> None:
    breaker = CircuitBreaker(cast(Any, Account()))
    attempts = 0 if status == "refused" else 1  # counted by the account where the error has no count

    def request() -> None:
        raise error

    for once, expected in ((False, status), (True, if_once)):
        outcome = Outcome(expected, AT, error.status, "x", attempts)
        assert breaker.attempt(AT, request, once) == (outcome, error)
        assert breaker.send(AT, request, "a", once) == outcome
    assert breaker.attempt(AT, request)[0].status == status
    assert breaker.send(AT, request, "a").status == status
    assert breaker.answers == (6 if status == "refused" else 0)
    assert breaker.send(AT, lambda: None, "a") == DELIVERED
    if isinstance(error, Unavailable):  # three persons in a row, in whatever order they were requested
        for who in "bcb":
            breaker.send(AT, request, who)
        with pytest.raises(Unavailable) as raised:
            breaker.send(AT, request, "d")
        assert raised.value is breaker.cause is error


def asking_to_wait() -> Unavailable:
    error = Unavailable("z", status=503)
    error.wait = 3600
    return error


@pytest.mark.parametrize("error", [NotAuthorized("x"), ContactLimit("y"), asking_to_wait()])
def test_an_error_that_every_request_would_have_ends_the_run(error: ApiError) -> None:
    breaker = CircuitBreaker(cast(Any, Account()))

    def request() -> None:
        raise error

    assert (breaker.is_open, breaker.cause) == (False, None)
    with pytest.raises(type(error)):
        breaker.attempt(AT, request)
    assert (breaker.is_open, breaker.cause, breaker.answers) == (True, error, 0)
    breaker.open(Unavailable("later"))
    assert breaker.cause is error
    with pytest.raises(RunStopped, match=r"^the run broke off$"):
        breaker.attempt(AT, lambda: None)
