"""Prints what a dry run of sending would change, for readers who do not know the API."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.cells import cell_len, set_cell_size

from ..destination import DeliveryLog, Preview
from ..destination.preview import PreviewedContact, column_of, current_contacts, shown_value, written_fields
from ..display import plural, shortened
from . import out

_FIELD = 20  # columns of the terminal for a field's name
_VALUE = 25  # columns for each of its values, the present one and the new one
_NOT_LOADED = (
    "What they have now is not loaded. To see it as well, run first:",
    "autopilothq load api --only contacts",
)


def print_preview(preview: Preview, log: DeliveryLog, is_all: bool) -> None:
    """Prints the changes to the first contacts, then the counts by field and by journey.

    `is_all` tells whether the run would change nothing beyond this preview.
    """
    columns = [column_of(key) for contact in preview.contacts for key, _ in written_fields(contact.values)]
    emails = [contact.email.lower() for contact in preview.contacts]
    now = current_contacts(log.dataset, emails, columns) if emails and preview.is_compared else None
    nothing = "Nothing is sent, and nothing would change." if is_all else "Nothing is sent."
    out.print_line("Nothing is sent. What would change:" if preview.people else nothing)
    if preview.people and now is None and preview.is_compared:
        out.print_lines(_NOT_LOADED)
    for contact in preview.contacts:
        out.print_line()
        out.print_lines(_contact(preview, contact, now))
    if (more := preview.people - len(preview.contacts)) > 0:
        out.print_lines(["", f"… and {plural(more, 'more contact')}"])
    if preview.people:
        out.print_line()
        out.print_lines(_counts(preview))
        out.print_line()


def _contact(preview: Preview, contact: PreviewedContact, now: Mapping[str, Any] | None) -> Iterator[str]:
    present = None if now is None else now.get(contact.email.lower())
    note = "" if present is not None or now is None else "  (not in the table contacts)"
    yield shortened(contact.email, 79 - len(note)) + note
    changes = contact.changes(present or {})
    same = [change.field for change in changes if present is not None and change.is_unchanged]
    changes = [change for change in changes if change.field not in same]
    width = max((cell_len(_cut(shown_value(change.now))) for change in changes), default=0)
    for change in changes:
        before = f"{set_cell_size(_cut(shown_value(change.now)), width)} → " if present is not None else ""
        yield f"  {_padded(preview.label(change.field), _FIELD)}  {before}{_cut(shown_value(change.then))}"
    if same:
        yield shortened(f"  stays as it is: {', '.join(map(preview.label, same))}", 79)
    for trigger in contact.triggers:
        verb = "enters the journey" if preview.is_compared else "gets the activity"
        yield shortened(f"  {verb} {preview.journeys.get(trigger, '')} ({trigger})", 79)


def _counts(preview: Preview) -> Iterator[str]:
    if keys := list(dict.fromkeys([*preview.values, *preview.cleared])):
        yield f"{_padded('field', 2 * _FIELD)}  {'values':>9}  {'cleared':>9}"
    for key in keys:
        name = preview.label(key) + ("  (no such field)" if preview.is_unknown(key) else "")
        yield f"{_padded(name, 2 * _FIELD)}  {preview.values[key]:>9,}  {preview.cleared[key]:>9,}"
    if preview.entering:
        yield ""
        name, verb = ("journey", "entering") if preview.is_compared else ("activity", "getting")
        yield f"{_padded(name, 2 * _FIELD)}  {verb:>9}"
    for trigger, number in preview.entering.items():
        name = f"{preview.journeys.get(trigger, '')} ({trigger})".strip()
        yield f"{_padded(name, 2 * _FIELD)}  {number:>9,}"


def _padded(text: str, width: int) -> str:
    """Returns the text, padded or cut to `width` columns of a terminal."""
    return set_cell_size(_cut(text, width), width)


def _cut(text: str, width: int = _VALUE) -> str:
    """Returns the text, cut to `width` columns of a terminal, where some letters take two columns."""
    shown = shortened(text, width)
    return shown if cell_len(shown) <= width else set_cell_size(shown, width - 1).rstrip() + "…"
