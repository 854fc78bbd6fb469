"""The share of an archive's files that a worker reads: plain data, without file systems, which may hold secrets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from ...segment.mapping import Mappings
from ...segment.message import Batch
from ..file_systems import is_remote
from . import batches
from .listing import File, file_system
from .mapped import map_batches


@dataclass(frozen=True)
class ArchiveShare:
    """Consecutive whole files of a load, of which the first has the number `first`.

    `files` has the URL, version, size and path of each; `timeout` and `mappings` are those of the archive.
    """

    files: Sequence[tuple[str, str, int, str]]
    first: int
    timeout: float
    mappings: Mappings = field(default_factory=dict)

    def read(self) -> Iterator[Batch]:
        """Opens the file systems, and yields the lines with their files' numbers in the load."""
        opened = {root: file_system(root) for root in {_root(url) for url, *_ in self.files}}
        files = [File(url, version, size, opened[_root(url)], path) for url, version, size, path in self.files]
        for batch in map_batches(batches.read_batches(files, timeout=self.timeout), self.mappings):
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
