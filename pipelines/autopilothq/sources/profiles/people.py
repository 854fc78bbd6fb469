"""Reads the people whose events to request from the Profile API: those of a file, or Autopilot's contacts."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from ...clients.autopilot import Autopilot, Page
from ...clients.profile_api import ID_TYPES
from ...projection import engine
from ...segment.json_text import JsonObject, is_storable
from ..due_people import lines_of_file
from ..spool import Spool, fetch_ahead
from ..times import read_time
from .events import nonblank_text

PEOPLE_PER_GROUP = 10_000  # people of a file that are in memory at a time


class Person(NamedTuple):
    """A person's id in the API, and the time of the last activity in the contact's record, if there is one."""

    id: str
    active_at: datetime | None = None


def profile_id(value: str) -> str | None:
    """Returns the API's id for an email or a user id, in lower case as the API needs it; None for an unusable text.

    A value that begins with `email:`, `user_id:` or `anonymous_id:` has its kind already.
    Examples: `profile_id(" A.B@Example.com ") == "email:a.b@example.com"`, `profile_id("12345") == "user_id:12345"`.
    """
    text = value.strip()
    if not text or not is_storable(text):
        return None
    kind, colon, rest = text.partition(":")
    if colon and kind.strip().lower() in ID_TYPES:
        return f"{kind.strip().lower()}:{rest.strip().lower()}" if rest.strip() else None
    return f"{'email' if '@' in text else 'user_id'}:{text.lower()}"


def people_of_file(path: Path) -> Iterator[list[Person]]:
    """Yields the people of a file in chunks; each line has an email or a user id. Raises InvalidSetting."""
    ids = filter(None, map(profile_id, lines_of_file(path, "emails or user ids")))
    for group in engine.batched(ids, PEOPLE_PER_GROUP):
        yield list(map(Person, group))


def people_of_contacts(spool: Spool, account: Autopilot, progress: Callable[[], None]) -> Iterator[list[Person]]:
    """Yields the people among Autopilot's contacts, page by page, the pages in the spool first.

    `progress` is called after each page that is fetched. Contacts without an email are left out, because the space
    cannot know them.
    """
    for contacts, _ in spool.read_all():
        yield _people(contacts)
    if not spool.complete:
        pages = map(_reduced, account.contacts(spool.bookmark))
        for fetched in fetch_ahead(spool, pages, lambda: False):
            yield _people(spool.contacts_of(fetched)[0])
            progress()


def _reduced(page: Page) -> Page:
    """Returns a page with only the emails and the times of its contacts."""
    kept = [
        JsonObject(field for field in contact if field[0] in ("Email", "updated_at") or field[0].startswith("mail_"))
        for contact in page.contacts
        if isinstance(contact, JsonObject) and nonblank_text(contact.value("Email"))
    ]
    return page._replace(contacts=kept)


def _people(contacts: list[object]) -> list[Person]:
    found = (
        (profile_id(f"email:{contact.value('Email')}"), contact)
        for contact in contacts
        if isinstance(contact, JsonObject)
    )
    return [Person(known, _active_at(contact)) for known, contact in found if known]


def _active_at(contact: JsonObject) -> datetime | None:
    """Returns the latest time in a contact's record; values that cannot be read as times do not count."""
    values = [contact.value("updated_at")]
    for name, emails in contact:
        if name.startswith("mail_") and isinstance(emails, JsonObject):
            values += [value for _, value in emails]
    return max((time for value in values if (time := read_time(value))), default=None)
