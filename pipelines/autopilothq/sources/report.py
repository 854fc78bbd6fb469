"""The report of a load: its counts while it runs, and the warnings that a person should read."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..catalog import AUDIT

COUNTED = ("lines", "stored", "duplicates", "rejected")
MAX_NAMED = 10  # tables or events that a warning names


@dataclass
class LoadReport:
    """The counts of a load so far; complete once the source is extracted.

    `files` are files of an archive, scans of an API, or whatever else the origin's work is.

    Attributes:
        files: How many files the load reads.
        files_known: How many files were found that are loaded already.
        files_done: How many files were read to their end so far.
        bytes: The size of the files that the load reads.
        bytes_done: How many of these bytes were read so far.
        lines: Lines that were read, without blank ones.
        stored: Lines that became rows.
        duplicates: Lines whose message was stored already.
        rejected: Lines that were rejected.
        mended: Cut texts of adopted rows that this load made whole.
        lines_skipped: Lines whose messages were not requested.
        rejects: Rejected lines by reason.
        reject_causes: Lines that are not JSON, by the likely cause; those without a known one are left out.
        discards: Values that were discarded, as rows of `_discards`.
        beyond_limits: Values that a limit excluded, by reason and table.
        rows: Rows by table.
        unfinished: Why the next load reads files again, by their URL.
        skipped: How many files were found but are not read, by reason.
        skipped_examples: Some of these files, by reason.
        contacts: Contacts that a scan has read.
        contacts_total: How many contacts the account has, if it says so.
        people: People whose events were requested.
        people_total: People whose events are due to be requested.
        people_found_by: How these people were found, if an API offers several ways.
        tasks: How many tasks for workers the load consists of, as far as known; 0 without workers.
        tasks_done: How many of them are done.
        cut_off: Why the origin stopped early; what it had read is loaded.
        failed: Why parts could not be loaded although others were, by the name of the part.
        warnings: Warnings that a person should read.
        seconds: How long it took to read the lines and to make rows.
    """

    files: int = 0
    files_known: int = 0
    files_done: int = 0
    bytes: int = 0
    bytes_done: int = 0
    lines: int = 0
    stored: int = 0
    duplicates: int = 0
    rejected: int = 0
    mended: int = 0
    lines_skipped: int = 0
    rejects: dict[str, int] = field(default_factory=dict)
    reject_causes: dict[str, int] = field(default_factory=dict)
    discards: int = 0
    beyond_limits: dict[str, dict[str, int]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    unfinished: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    skipped_examples: dict[str, list[str]] = field(default_factory=dict)
    contacts: int = 0
    contacts_total: int | None = None
    people: int = 0
    people_total: int | None = None
    people_found_by: str | None = None
    tasks: int = 0
    tasks_done: int = 0
    cut_off: str | None = None
    failed: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def then(self, part: "LoadReport") -> "LoadReport":
        """Returns the report of this load together with `part`, the next load of the same run."""
        added = ("bytes_done", *COUNTED, "mended", "lines_skipped", "discards", "people")
        counts = {name: getattr(self, name) + getattr(part, name) for name in added}
        # The run has one row of `_audit` for each scan, and each load replaces it.
        rows = _sum(self.rows, part.rows) | {AUDIT.name: max(of.rows.get(AUDIT.name, 0) for of in (self, part))}
        return dataclasses.replace(
            part,
            **counts,
            rows=rows,
            rejects=_sum(self.rejects, part.rejects),
            reject_causes=_sum(self.reject_causes, part.reject_causes),
            beyond_limits={
                reason: _sum(self.beyond_limits.get(reason, {}), part.beyond_limits.get(reason, {}))
                for reason in self.beyond_limits | part.beyond_limits
            },
            failed=self.failed | part.failed,
            warnings=[*self.warnings, *part.warnings],
            people_total=part.people_total if self.people_total is None else self.people_total,
        )


ProgressCallback = Callable[[LoadReport], object]
"""Called with the report after each step of a load."""


def no_progress(report: LoadReport) -> None:
    """Ignores the progress of a load."""


def limit_warning(reason: str, tables: Mapping[str, int]) -> str:
    """Returns the warning about values that a limit excluded; `tables` are a reason's `beyond_limits`."""
    some = [f"{name} ({count:,})" for name, count in itertools.islice(tables.items(), MAX_NAMED)]
    more = f" and {len(tables) - MAX_NAMED:,} more" if len(tables) > MAX_NAMED else ""
    what = "messages of events without a table" if reason == "too_many_tables" else "values beyond a limit"
    return f"{reason}: {what}, in _discards: {', '.join(some)}{more}"


def _sum(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    return {name: first.get(name, 0) + second.get(name, 0) for name in {**first, **second}}
