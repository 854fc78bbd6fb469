"""What a run knows about the people whose messages it sends. A stream keeps it from one chunk to the next."""

from dataclasses import dataclass, field

from .batch import BatchItem
from .changes import AddressChanges
from .delivery_log import DeliveryLog, Sent
from .emails import KnownEmails
from .opening import OpenAccount
from .order import PersonOrder


@dataclass
class RunState:
    """The state of a run, which its senders share.

    - `changes`: the changes of addresses by earlier runs.
    - `emails`: emails by user id.
    - `order`: the people whose delivered items must be sent again.
    - `unmapped`: properties that have a remark in a row of this run.
    - `last_written`: the email of the contact that was written last.
    - `gives_up`: whether what fails for a second time counts as bad if the account still accepts a contact that the
      log has as delivered.
    """

    changes: AddressChanges
    emails: KnownEmails
    order: PersonOrder = field(default_factory=PersonOrder)
    unmapped: set[str] = field(default_factory=set)
    last_written: str | None = None
    gives_up: bool = False

    @classmethod
    def new(cls, to: OpenAccount, log: DeliveryLog) -> "RunState":
        """Returns the state of a run that has sent nothing yet."""
        changes = AddressChanges(to.account, log.changes())
        return cls(changes, KnownEmails(to.account, log, to.fields, changes))

    def begin(self) -> None:
        """Begins the next items, or the same ones again after an outage. Only the newest 50,000 people are kept."""
        self.changes.begin()
        self.emails.begin()
        self.order.begin()

    def end(self, log: DeliveryLog, last_written: str | None) -> None:
        """Notes that the items are sent."""
        self.changes.end()
        self.order.end(Sent(log.last, log.run))
        self.last_written = last_written

    def touch(self, item: BatchItem) -> None:
        """Notes that this run sends an item of a person."""
        self.order.touch(item.person or item.key)

    def touch_address(self, email: str) -> None:
        """Notes that this run sends an item of the person who had an address before the changes not yet reached."""
        self.order.touch(self.changes.follow(email).lower())
