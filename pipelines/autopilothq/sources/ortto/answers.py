"""Keeps answers about people on the disk until they are loaded, so that nobody is asked for again after a kill.

Each load writes a segment, a file of lines: messages as they are, and the end of each person. An incomplete line does
not count. A person without an end is asked for again; messages that come twice are stored once.
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


class Ended(NamedTuple):
    """A person who was asked for at `asked_at`, and whose activities are loaded up to `loaded_until`.

    `known` is whether the account has the person, `error` why no answer could be read, `answer` what came instead.
    """

    person: str
    loaded_until: datetime | None
    asked_at: datetime
    known: bool = True
    error: str | None = None
    answer: str | None = None


Entry = bytes | Ended
"""A message, one line, or the end of a person."""


class Answers:
    """The segments of a run in a folder; `segment` is the number of the last one. Those up to `loaded` are deleted."""

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
                    yield _ended(line) if line.startswith(_END) else line

    def add(self, messages: Sequence[bytes]) -> None:
        """Keeps messages of the person who is being asked for, each a line."""
        self._segment().write(b"".join(messages))

    def end(self, ended: Ended) -> None:
        """Keeps on the disk that a person was asked for."""
        fields: list[Any] = [of.isoformat() if isinstance(of, datetime) else of for of in ended]
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


def _ended(line: bytes) -> Ended:
    person, until, asked_at, *rest = json.loads(line.removeprefix(_END))
    return Ended(person, until and datetime.fromisoformat(until), datetime.fromisoformat(asked_at), *rest)
