"""Reads files of an archive in batches of lines, in which the properties of mapped events have their new names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from ...segment.mapping import Mappings, mapped_line
from ...segment.message import Batch
from ...segment.naming import event_key
from ..event_filter import read_events
from ..file_systems import is_remote
from . import batches
from .listing import File, file_system


def read_mapped(
    files: Sequence[File], mappings: Mappings, timeout: float, batch_bytes: int = batches.BATCH_BYTES
) -> Iterator[Batch]:
    """Yields the files' lines, as `batches.read_batches` does, but with the properties of mapped events renamed."""
    renaming = {source: mapping for source, mapping in mappings.items() if mapping.properties}
    read = batches.read_batches(files, batch_bytes=batch_bytes, timeout=timeout)
    if not renaming:
        yield from read
        return
    for batch in read:
        yield batch._replace(lines=_mapped(batch.lines, renaming))


def _mapped(lines: pa.Table, renaming: Mappings) -> pa.Table:
    is_mapped: dict[str | None, bool] = {None: False}
    numbers = []
    for number, (readable, _, event) in enumerate(read_events(lines)):
        if event not in is_mapped:
            is_mapped[event] = event_key(event or "") in renaming
        if is_mapped[event] or not readable:
            numbers.append(number)
    if not numbers:
        return lines
    texts = lines["text"].to_pylist()
    for number in numbers:
        texts[number] = mapped_line(texts[number], renaming)
    return lines.set_column(lines.schema.get_field_index("text"), "text", pa.array(texts, pa.large_binary()))


@dataclass(frozen=True)
class ArchiveShare:
    """What a worker reads: consecutive whole files of a load, the first of which has the number `first`.

    It is plain data, without file systems, which may hold secrets. `files` has the URL, version, size and path of each;
    `timeout` and `mappings` are those of the archive.
    """

    files: Sequence[tuple[str, str, int, str]]
    first: int
    timeout: float
    mappings: Mappings = field(default_factory=dict)

    def read(self) -> Iterator[Batch]:
        """Opens the file systems, and yields the lines with their files' numbers in the load."""
        opened = {root: file_system(root) for root in {_root(url) for url, *_ in self.files}}
        files = [File(url, version, size, opened[_root(url)], path) for url, version, size, path in self.files]
        for batch in read_mapped(files, self.mappings, self.timeout):
            yield _renumbered(batch, self.first)


def _root(url: str) -> str:
    """Returns the bucket that a URL is in, or `/` for a file on this machine."""
    return "/".join(url.split("/", 3)[:3]) if is_remote(url) else "/"


def _renumbered(batch: Batch, first: int) -> Batch:
    """Returns the batch with `first` added to the numbers of its files."""
    numbers = pc.add(batch.lines["file"], pa.scalar(first, pa.int32()))
    return batch._replace(
        lines=batch.lines.set_column(0, "file", numbers),
        rejects=[reject._replace(file=reject.file + first) for reject in batch.rejects],
        ended=[(number + first, why) for number, why in batch.ended],
    )
