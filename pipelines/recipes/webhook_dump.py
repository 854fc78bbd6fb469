"""An origin of your own: a folder of webhook requests, as Segment's Webhooks destination sends them to a logging proxy.

Each file `*.ndjson` has a request a line, `{"path": "/segment", "body": "..."}`: its body is a message. The file
`lists.ndjson`, if there is one, has the account's lists.

python webhook_dump.py dump/
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import dlt

from autopilothq import MESSAGE_RESOURCES, Batch, LoadContext, Origin, TableRows, make_batch, read_record, source

LISTS = "lists.ndjson"
LINES_PER_BATCH = 5_000


class DumpFile(NamedTuple):
    """A file of the dump. Its URL and version tell whether it was loaded before."""

    path: Path
    url: str
    version: str
    size: int


@dataclass(frozen=True)
class WebhookDump(Origin[DumpFile]):
    """The messages of the requests in a folder, and the lists of the account."""

    folder: Path

    tables = (*MESSAGE_RESOURCES, "lists")
    reads_again = True

    def plan(self, context: LoadContext) -> Sequence[DumpFile]:
        """Returns the files that are new, or have changed since they were loaded."""
        paths = sorted(path for path in self.folder.glob("*.ndjson") if path.name != LISTS)
        return context.new([dump_file(path) for path in paths])

    def read(self, work: Sequence[DumpFile]) -> Iterator[Batch]:
        """Yields the bodies of the requests."""
        for index, file in enumerate(work):
            with file.path.open("rb") as requests:
                bodies = ((number, body_of(line)) for number, line in enumerate(requests, 1))
                while lines := list(islice(bodies, LINES_PER_BATCH)):
                    yield make_batch(index, lines, size=sum(len(text) for _, text in lines))
            yield make_batch(index, [], ended=True)

    def finish(self, context: LoadContext) -> Iterator[TableRows]:
        """Yields the account's lists, which replace those of the load before."""
        path = self.folder / LISTS
        if "lists" in context.selected and path.exists():
            lists = context.snapshot("lists", received_at=context.loaded_at)
            lists.add([read_record("lists", line) for line in path.read_bytes().splitlines()])
            yield lists.rows(context.existing_columns("lists"))
            lists.close()


def dump_file(path: Path) -> DumpFile:
    """Returns a file with a version that changes when the file does."""
    stat = path.stat()
    return DumpFile(path, str(path), f"{stat.st_size}-{stat.st_mtime_ns}", stat.st_size)


def body_of(line: bytes) -> bytes:
    """Returns the body of a request; a line that is no request stays as it is, and the load rejects it."""
    try:
        body = json.loads(line)["body"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return line
    return body.encode() if isinstance(body, str) else line


if __name__ == "__main__":
    os.umask(0o077)  # what it writes may name people
    pipeline = dlt.pipeline("webhooks", destination="duckdb", dataset_name="autopilothq")
    print(pipeline.run(source(WebhookDump(Path(sys.argv[1])))))  # noqa: T201
