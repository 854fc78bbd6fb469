"""How messages are counted, without an account."""

from collections import Counter
from itertools import permutations
from typing import Any

import pytest

from autopilothq.destination import counts
from autopilothq.destination.counts import WORST_FIRST, Counts


def test_a_message_counts_once_by_the_worst_that_happened_to_it() -> None:
    found = Counts()
    for number in range(len(WORST_FIRST)):
        for statuses in permutations(WORST_FIRST[number:]):
            found.add_message([(status, f"why {status}") for status in statuses])
    found.add_message([("delivered", None), ("refused", None)])
    found.add_message([("refused", None), ("refused", "why refused")])
    found.add_message([("refused", "why refused"), ("refused", "too")], ["delivered"])
    found.add_message([("refused", "why refused")], ["unknown"])
    assert (found.failed, found.unknown, found.refused, found.delivered) == (24, 7, 5, 1)
    assert found.reasons == {
        ("failed", "why failed"): 24,
        ("unknown", "why unknown"): 6,
        ("unknown", "an earlier run could not tell whether it was carried out"): 1,
        ("refused", "why refused"): 4,
        ("refused", ""): 1,
    }


@pytest.mark.parametrize("name", ["refused", "failed", "unknown"])
def test_all_is_delivered_unless_a_message_ended_otherwise(name: str) -> None:
    assert Counts(delivered=1, known=1, repeated=1, suppressed=1, bad=1).all_delivered
    found = Counts()
    found.add(name)
    assert not found.all_delivered


def test_what_earlier_runs_sent_is_known_or_still_unknown() -> None:
    found = Counts()
    found.add_earlier(["delivered", "refused"])
    found.add_earlier([])
    found.add_earlier(["delivered", "unknown"])
    why = "an earlier run could not tell whether it was carried out"
    assert found == Counts(known=2, unknown=1, reasons=Counter({("unknown", why): 1}))


def test_what_is_sent_again_is_no_more_counted() -> None:
    reasons = {("failed", "a"): 2, ("failed", ""): 1, ("refused", "a"): 1, ("unknown", "a"): 2, ("unknown", ""): 1}
    found = Counts(failed=3, refused=1, unknown=3, reasons=Counter(reasons))
    found.drop_failed()
    left = {key: number for key, number in reasons.items() if key[0] != "failed"}
    assert found == Counts(refused=1, unknown=3, reasons=Counter(left))
    found.drop_unknown(["a", None])
    assert found == Counts(refused=1, unknown=1, reasons=Counter({("refused", "a"): 1, ("unknown", "a"): 1}))


def test_the_parts_of_a_run_are_added_up_and_many_reasons_counted_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MOST_REASONS", 2)
    names = [name for name, value in vars(Counts()).items() if isinstance(value, int)]
    numbers: dict[str, Any] = {name: number for number, name in enumerate(names, 1)}
    found = Counts(**numbers, reasons=Counter({("failed", "a"): 1}), remarks=Counter({"x was left out": 1}))
    found.add_unmapped(["title", "title"])
    more = Counts(**numbers)
    more.reasons.update({("failed", "a"): 2, ("failed", "b"): 3, ("failed", "c"): 4, ("refused", "c"): 5})
    more.add_remarks({"x": "left out"})
    more.add_remarks({"y": "left out, got 1"})
    more.add_remarks({"y": "left out, got 2", "z": "left out", "w": "left out"})
    more.add_unmapped(["title"])
    more.ignored["page"] = 7
    found.merge(more)
    assert {name: getattr(found, name) for name in numbers} == {name: 2 * number for name, number in numbers.items()}
    others = {("failed", "other reasons"): 4, ("refused", "other reasons"): 5}
    assert found.reasons == {("failed", "a"): 3, ("failed", "b"): 3, **others}
    assert (found.remarks, found.unmapped, found.ignored) == (
        {"x was left out": 2, "y was left out": 2, "other remarks": 2},
        {"title": 3},
        {"page": 7},
    )
