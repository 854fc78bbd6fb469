"""Runs `mapping`: prints the unknown events of an archive and a proposed mapping as TOML, the rest as comments."""

from collections.abc import Iterator, Sequence
from typing import Any

from ..display import json_text, plural, shortened, visible
from ..explain import explained
from ..segment.json_text import is_encodable
from ..segment.mapping import MAPPING_SETTING, KeyPath, read_mappings
from ..segment.naming import column_name
from ..segment.proposal import KNOWN_COLUMNS, Proposal, SeenEvent, SeenProperty, masked_sample, propose
from ..sources.archive import list_files
from ..sources.archive.source import nothing_found
from ..sources.archive.unknown import EventSurvey, survey_events
from ..sources.settings import check_origin_settings
from ..warehouses.settings import setting
from . import log, out
from .options import archive_urls

_WIDTH = 80


def print_mapping(urls: Sequence[str], lines: int, as_json: bool) -> None:
    """Prints the proposal for the archives at `urls`, or for the configured ones if it is empty."""
    check_origin_settings("archive")
    found = archive_urls(urls)
    with explained():
        left_out: dict[str, str] = {}
        files = list_files(found, credentials=setting("sources.autopilothq.credentials"), left_out=left_out)
        if not files:
            log.warn(nothing_found("map", found, left_out))
        survey = survey_events(files, read_mappings(setting(MAPPING_SETTING)), lines)
    if as_json:
        out.document(json_text(_as_json(survey), indent=2))
    else:
        out.print_lines(_toml(survey))


def _toml(survey: EventSurvey) -> Iterator[str]:
    yield f"# {plural(survey.lines, 'line')}: {survey.known:,} of Autopilot's events, {survey.mapped:,} of mapped ones,"
    yield f"# {_unknown(survey):,} of others."
    if survey.others:
        others = plural(survey.others, "of them is of an event that is", "of them are of events that are")
        yield f"# {others} not shown, because there are too many."
    for event in sorted(survey.events.values(), key=lambda event: -event.count):
        yield ""
        yield from _event(event, propose(event))


def _unknown(survey: EventSurvey) -> int:
    return survey.others + sum(event.count for event in survey.events.values())


def _event(event: SeenEvent, proposal: Proposal) -> Iterator[str]:
    name = shortened(json_text(event.name), 50)
    if proposal.event is None or not is_encodable(event.name):  # files of configuration hold no lone surrogates
        yield f"# {name}: {plural(event.count, 'message')}. No event of Autopilot's is like it, so it keeps its table."
        yield from (_property(path, seen, None, 0) for path, seen in event.properties.items())
        return
    section = f"{MAPPING_SETTING}.{json_text(event.name)}"
    yield f"# {name}: {plural(event.count, 'message')}. By {visible(proposal.why)}: {proposal.event}."
    yield f"[{section}]"
    yield f"event = {json_text(proposal.event)}"
    if not event.properties:
        return
    yield ""
    yield f"[{section}.properties]"
    targets = {path: target for path, target in proposal.properties.items() if is_encodable(".".join(path))}
    width = max((len(_setting(path, target)) for path, target in targets.items()), default=0)
    for path, seen in event.properties.items():
        yield _property(path, seen, targets.get(path), width)


def _setting(path: KeyPath, target: str) -> str:
    return f"{json_text('.'.join(path))} = {json_text(target)}"


def _property(path: KeyPath, seen: SeenProperty, target: str | None, width: int) -> str:
    kinds = " or ".join(kind for kind, _ in seen.kinds.most_common())
    text = f"{kinds}, {seen.count:,}"
    if target:
        head = f"{_setting(path, target):<{width}}  # {text}: "
    else:
        column = column_name(path)
        own = f" is {column} already" if column in KNOWN_COLUMNS else ""
        head = f"# {shortened(json_text('.'.join(path)), 50)}{own}: {text}: "
    samples = ", ".join(map(masked_sample, seen.values))
    return head + shortened(samples, max(8, _WIDTH - len(head)))


def _as_json(survey: EventSurvey) -> dict[str, Any]:
    return {
        "lines": survey.lines,
        "known": survey.known,
        "mapped": survey.mapped,
        "unknown": _unknown(survey),
        "events": [_event_as_json(event, propose(event)) for event in survey.events.values()],
    }


def _event_as_json(event: SeenEvent, proposal: Proposal) -> dict[str, Any]:
    properties = {
        ".".join(path): {
            "number": seen.count,
            "kinds": list(seen.kinds),
            "samples": [masked_sample(value) for value in seen.values],
            "column": proposal.properties.get(path),
        }
        for path, seen in event.properties.items()
    }
    return {
        "name": event.name,
        "number": event.count,
        "event": proposal.event,
        "by": proposal.why,
        "properties": properties,
    }
