"""Surveys the events of an archive that are not Autopilot's: counts them, and collects their properties."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...catalog import EVENT_TABLE_NAMES
from ...segment.json_text import JsonNumber
from ...segment.mapping import Mappings
from ...segment.message import Rejected, is_blank_line, parse_json
from ...segment.naming import event_key
from ...segment.proposal import MAX_EVENTS, SeenEvent
from ..event_filter import read_events
from .batches import read_batches
from .listing import File


@dataclass
class EventSurvey:
    """Counts of the lines read: all, tracks of Autopilot's events, of mapped events, and of others by `event_key`."""

    lines: int = 0
    known: int = 0
    mapped: int = 0
    events: dict[str, SeenEvent] = field(default_factory=dict)
    others: int = 0
    """Tracks of further events, beyond the `MAX_EVENTS` in `events`."""


def survey_events(files: Sequence[File], mappings: Mappings, most: int) -> EventSurvey:
    """Surveys at most the first `most` lines of files. In Python, only lines of unknown events are parsed."""
    survey = EventSurvey()
    for batch in read_batches(files):
        for text, (readable, kind, event) in zip(batch.lines["text"], read_events(batch.lines), strict=True):
            if not readable and is_blank_line(text.as_py()):
                continue  # a blank line does not count
            if survey.lines == most:
                return survey
            survey.lines += 1
            if readable and (kind != "track" or event is None or _count_known(survey, event_key(event), mappings)):
                continue
            _add(survey, text.as_py(), None if readable else mappings)
    return survey


def _count_known(survey: EventSurvey, table: str, mappings: Mappings) -> bool:
    """Counts a track that needs no new mapping; returns whether it is one."""
    survey.known += table in EVENT_TABLE_NAMES
    survey.mapped += table in mappings
    return table in EVENT_TABLE_NAMES or table in mappings


def _add(survey: EventSurvey, line: bytes, mappings: Mappings | None) -> None:
    """Counts a line of an unknown event. `mappings` are only given if the engine could not read the line."""
    try:
        message = parse_json(line)
    except Rejected:
        return
    event = message.value("event")
    if message.value("type") != "track" or not isinstance(event, str) or isinstance(event, JsonNumber):
        return
    table = event_key(event)
    if mappings is not None and _count_known(survey, table, mappings):
        return
    if table not in survey.events and len(survey.events) >= MAX_EVENTS:
        survey.others += 1
        return
    survey.events.setdefault(table, SeenEvent(event)).add(message.value("properties"))
