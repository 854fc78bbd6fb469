"""Runs `forward` for files, for a stream, or for a query."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..clients.auth import missing_key
from ..clients.segment_api import SegmentApi, SegmentApiSettings
from ..destination import Counts, log_dataset
from ..destination.forward import Forwarder
from ..destination.forward_log import ForwardLog
from ..destination.lines import read_chunks
from ..destination.outgoing import Outgoing, outgoing, outgoing_row, refuse_line
from ..destination.segment import forward_messages, resolve_segment_settings
from ..destination.stream import until_reached
from ..explain import explained
from . import log as logs
from . import out
from .configuring import missing_explained
from .options import freeze_modules, standard_input
from .send_options import SendOptions
from .sending import (
    account_kind,
    archive_lines,
    end_run,
    print_counts,
    query_rows,
    report_if_broken_off,
    reporter,
    sending_lock,
)
from .streaming import RejectWarnings, stopped_by_signals, turns

ApiOptions = Mapping[str, Any]
"""The values of `write_key`, `base_url` and `requests_per_second`; None leaves a value to dlt's configuration."""
_OPTIONS = {"base_url": "--to", "requests_per_second": "--requests-per-second"}


def forward_files(paths: Sequence[str], api: ApiOptions, options: SendOptions) -> None:
    """Forwards the messages of files."""
    broken: list[str] = []
    with explained():
        given = _settings(api)
        with sending_lock(options), _log(options) as log:
            counts = _forward(_messages(paths, broken), log, given, options)
    end_run(counts, options, broken)


def forward_rows(query: str, api: ApiOptions, options: SendOptions) -> None:
    """Forwards the rows of a query as messages."""
    with explained():
        given = _settings(api)
        with sending_lock(options), query_rows(query, options) as (names, rows), _log(options) as log:
            messages = (outgoing_row(dict(zip(names, row, strict=True))) for row in rows)
            counts = _forward(messages, log, given, options)
    end_run(counts, options)


def forward_stream(api: ApiOptions, options: SendOptions) -> None:
    """Forwards the messages of stdin as they come, until stdin ends or a signal stops the run."""
    total, file = Counts(), standard_input().fileno()
    with explained(), stopped_by_signals() as stop, SegmentApi(_settings(api)) as source:
        log = turns(_log(options), stop, options)
        show = out.document if options.dry_run else None
        freeze_modules()
        progress, reject_warnings = reporter(), RejectWarnings()

        def send(messages: Sequence[Outgoing]) -> Counts:
            with log.take() as opened:
                return Forwarder(source, opened, show=show).send(messages)

        try:
            for lines in read_chunks(file, stop):
                messages = [outgoing(line) for line in lines]
                for line, message in zip(lines, messages, strict=True):
                    if message.refusal is not None:
                        reject_warnings.add(line, message.refusal)
                total.merge(until_reached(partial(send, messages), stop, logs.warn))
                progress(total)
        except BaseException:
            print_counts(total, account_kind(options).title)
            raise
    end_run(total, options)


def _settings(api: ApiOptions) -> SegmentApiSettings:
    what = "the write key of the source that takes the messages"
    missing = missing_key(what, "destination.segment.write_key", ", or name it by --write-key env:NAME")
    with missing_explained(write_key=missing):
        settings = resolve_segment_settings(**api, allow_http=logs.allowed_http())
    return replace(settings, options={name: option for name, option in _OPTIONS.items() if api[name] is not None})


def _log(options: SendOptions) -> ForwardLog:
    dry = options.dry_run
    return ForwardLog(log_dataset(*options.target, reads=dry, wait=options.wait), reads=dry)


def _messages(paths: Sequence[str], broken: list[str]) -> Iterator[Outgoing]:
    return (
        outgoing(line) if isinstance(line, bytes) else refuse_line(line.raw, line.reason)
        for line in archive_lines(paths, broken)
    )


def _forward(messages: Iterable[Outgoing], log: ForwardLog, given: SegmentApiSettings, options: SendOptions) -> Counts:
    freeze_modules()
    if options.dry_run:
        return forward_messages(messages, log, given, reporter(), out.document)
    with report_if_broken_off(reporter(), account_kind(options).title) as progress:
        return forward_messages(messages, log, given, progress)
