"""Keeps responses about people on the disk until they are loaded, so that no request is repeated after a kill.

Each load writes a segment, a file of lines: messages as they are, and the end of each person. An incomplete line does
not count. Activities of a person without an end are requested again; messages that come twice are stored once.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from ... import disk, private

KILL_POINT_PAGE_KEPT = f"{__name__}:Answers.add"  # for tests/faults
KILL_POINT_PERSON_KEPT = f"{__name__}:Answers.end"  # for tests/faults
_SUFFIX = ".log"
_END = b"!"  # no JSON begins with it


class PersonEnd(NamedTuple):
    """The end of a person's responses: requests began at `asked_at`; activities are loaded up to `loaded_until`.

    `known` is whether the account has the person, `error` why no response could be read, `answer` what came instead.
    """

    person: str
    loaded_until: datetime | None
    asked_at: datetime
    known: bool = True
    error: str | None = None
    answer: str | None = None


Entry = bytes | PersonEnd
"""A message, one line, or the end of a person."""


class Answers:
    """The segments of a run, in a folder; those up to `loaded` are deleted. `segment` is the number of the last one."""

    def __init__(self, folder: Path, loaded: int) -> None:
        self._folder = private.folder(folder)
        self._file: IO[bytes] | None = None
        for number in self._numbers():
            if number <= loaded:
                self._path(number).unlink()
        self.segment = max(self._numbers(), default=loaded)

    def kept(self) -> Iterator[Entry]:
        """Yields what is not loaded yet, segment by segment."""
        for number in self._numbers():
            with self._path(number).open("rb") as lines:
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    yield _read_end(line) if line.startswith(_END) else line

    def add(self, messages: Sequence[bytes]) -> None:
        """Writes messages, each a line, of the person whose activities are being requested."""
        self._segment().write(b"".join(messages))

    def end(self, ended: PersonEnd) -> None:
        """Writes the end of a person, and syncs the segment to the disk."""
        fields: list[Any] = [value.isoformat() if isinstance(value, datetime) else value for value in ended]
        file = self._segment()
        file.write(_END + json.dumps(fields).encode() + b"\n")
        disk.sync_open(file)

    def close(self) -> None:
        """Ends the segment; the next write begins a new one."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _segment(self) -> IO[bytes]:
        if self._file is None:
            self.segment += 1
            self._file = private.opened(self._path(self.segment))
        return self._file

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in self._folder.glob(f"*{_SUFFIX}"))

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08}{_SUFFIX}"


def _read_end(line: bytes) -> PersonEnd:
    person, until, asked_at, *rest = json.loads(line.removeprefix(_END))
    return PersonEnd(person, until and datetime.fromisoformat(until), datetime.fromisoformat(asked_at), *rest)
