"""The counts of a run: how many messages were delivered, refused, and so on."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

MOST_REASONS = 1000  # reasons that are counted separately, because a stream has no end
WORST_FIRST = ("failed", "unknown", "refused", "delivered")
_UNKNOWN_BEFORE = "an earlier run could not tell whether it was carried out"


@dataclass
class Counts:
    """Counts the messages of a run by their outcome. It is thread-safe."""

    messages: int = 0
    delivered: int = 0
    refused: int = 0
    failed: int = 0
    unknown: int = 0
    bad: int = 0  # failed ones that another try would not help, because they failed while others succeeded
    unsettled: int = 0  # unknown ones that change an address, in a load package, where another try would settle them
    known: int = 0  # delivered by an earlier run
    repeated: int = 0  # came before in this run
    suppressed: int = 0  # of persons on the suppression list; they have no row in the log
    not_meant: int = 0  # disabled for this account by their `integrations`; they have no row in the log
    ignored: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    unmapped: Counter[str] = field(default_factory=Counter)  # properties of events with the name of a standard field
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    @property
    def all_delivered(self) -> bool:
        """Whether no message was refused or failed, or has an unknown outcome."""
        return not (self.refused or self.failed or self.unknown)

    def add(self, name: str, number: int = 1) -> None:
        """Adds `number` to a count."""
        with self._lock:
            setattr(self, name, getattr(self, name) + number)

    def add_message(self, outcomes: Iterable[tuple[str, str | None]], earlier: Sequence[str] = ()) -> None:
        """Counts a message by the worst of its outcomes, and the first reason for it.

        `outcomes` are pairs of a delivery status and its reason, `earlier` the statuses that earlier runs logged.
        """
        reasons: dict[str, str | None] = {}
        for status, reason in (*outcomes, *((status, _UNKNOWN_BEFORE) for status in earlier)):
            reasons[status] = reasons.get(status) or reason
        worst = next(status for status in WORST_FIRST if status in reasons)
        self.add(worst)
        if worst != "delivered":
            with self._lock:
                self.reasons[worst, reasons[worst] or ""] += 1

    def add_earlier(self, statuses: Sequence[str]) -> None:
        """Counts a message that is not sent again, by the delivery statuses that earlier runs logged."""
        if "unknown" in statuses:
            self.add_message([], statuses)
        else:
            self.add("known")

    def add_unmapped(self, properties: Iterable[str]) -> None:
        """Counts properties of an event that have the name of a standard field and that no setting maps to it."""
        with self._lock:
            self.unmapped.update(properties)

    def add_remarks(self, remarks: Mapping[str, str]) -> None:
        """Counts remarks on traits that were left out, or that the account has no field for, without their values."""
        with self._lock:
            self.remarks.update(f"{trait} was {remark.partition(', got ')[0]}" for trait, remark in remarks.items())

    def drop_failed(self) -> None:
        """Drops the counts of failed messages, because they are sent again."""
        self.failed = 0
        self.reasons = Counter({key: number for key, number in self.reasons.items() if key[0] != "failed"})

    def drop_unknown(self, reasons: Iterable[str | None]) -> None:
        """Drops messages with an unknown outcome from the counts, given their reasons, because they are sent again."""
        for reason in reasons:
            self.add("unknown", -1)
            self.reasons -= Counter({("unknown", reason or ""): 1})

    def merge(self, other: "Counts") -> None:
        """Adds the counts of another part of the run. New reasons and remarks beyond 1,000 are counted as one."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(value, Counter):
                for key, number in value.items():
                    known = key in mine or len(mine) < MOST_REASONS
                    rest = (key[0], "other reasons") if isinstance(key, tuple) else "other remarks"
                    mine[key if known else rest] += number
            elif isinstance(value, int):
                self.add(name, value)
