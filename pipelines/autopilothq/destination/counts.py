"""The numbers of a run: how many messages were delivered, refused, and so on."""

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

MOST_REASONS = 1000  # that are counted separately: a stream has no end
WORST_FIRST = ("failed", "unknown", "refused", "delivered")


@dataclass
class Counts:
    """How many messages ended in which way so far. Threads may share it."""

    messages: int = 0
    delivered: int = 0
    refused: int = 0
    failed: int = 0
    unknown: int = 0
    bad: int = 0  # of the failed ones, those that failed while others succeeded: to try again later does not help
    known: int = 0  # delivered by an earlier run
    repeated: int = 0  # the same message again
    suppressed: int = 0  # of persons on the suppression list: they leave no trace in the log
    not_meant: int = 0  # only for other destinations, by their `integrations`: they leave no trace in the log
    ignored: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    untaken: Counter[str] = field(default_factory=Counter)  # properties of events that are spelt like standard fields
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    @property
    def all_delivered(self) -> bool:
        """Whether nothing was left undelivered."""
        return not (self.refused or self.failed or self.unknown)

    def add(self, name: str, number: int = 1) -> None:
        """Adds to one of the numbers."""
        with self._lock:
            setattr(self, name, getattr(self, name) + number)

    def add_message(self, statuses: Sequence[str], reason: str | None = None) -> None:
        """Counts a message by the worst of its delivery statuses, which has that reason."""
        worst = next(status for status in WORST_FIRST if status in statuses)
        self.add(worst)
        if worst != "delivered":
            with self._lock:
                self.reasons[worst, reason or ""] += 1

    def add_earlier(self, statuses: Sequence[str]) -> None:
        """Counts a message that is not delivered anew, by the delivery statuses that earlier runs logged."""
        if "unknown" in statuses:
            self.add_message(statuses, "an earlier run could not tell whether it was carried out")
        else:
            self.add("known")

    def add_untaken(self, properties: Iterable[str]) -> None:
        """Counts properties of an event that are spelt like a contact's fields."""
        with self._lock:
            self.untaken.update(properties)

    def add_remarks(self, remarks: Iterable[str]) -> None:
        """Counts remarks on traits that were left out, or sent to no field of the account."""
        with self._lock:
            self.remarks.update(remarks)

    def drop_failed(self) -> None:
        """Forgets what has failed, because it is sent again."""
        self.failed = 0
        self.reasons = Counter({key: number for key, number in self.reasons.items() if key[0] != "failed"})

    def drop_unknown(self, reasons: Iterable[str | None]) -> None:
        """Forgets messages with an unknown outcome, each by its reason, because they are sent again."""
        for reason in reasons:
            self.add("unknown", -1)
            self.reasons -= Counter({("unknown", reason or ""): 1})

    def merge(self, other: "Counts") -> None:
        """Adds the numbers of another part of the run. Only the first thousand reasons and remarks are told apart."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(value, Counter):
                for key, number in value.items():
                    known = key in mine or len(mine) < MOST_REASONS
                    rest = (key[0], "other reasons") if isinstance(key, tuple) else "other remarks"
                    mine[key if known else rest] += number
            elif isinstance(value, int):
                self.add(name, value)
