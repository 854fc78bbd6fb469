"""A share of an archive's files that a worker reads: plain data, without file systems, which may hold secrets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
from fsspec.implementations.local import LocalFileSystem

from ...segment.mapping import Mappings
from ...segment.message import Batch
from ..file_systems import is_remote, open_bucket
from . import batches
from .listing import File
from .mapped import map_batches


@dataclass(frozen=True)
class ArchiveShare:
    """Consecutive whole files of a load, the first of which has the number `first`.

    `files` are url, version, size and path of each; `timeout` is the archive's `read_timeout`, `mappings` are its own.
    """

    files: Sequence[tuple[str, str, int, str]]
    first: int
    timeout: float
    mappings: Mappings = field(default_factory=dict)

    def read(self) -> Iterator[Batch]:
        """Yields the lines, with the files' numbers in the load. Opens their file systems itself."""
        opened = {
            root: open_bucket(root) if is_remote(root) else LocalFileSystem()
            for root in {_root(url) for url, *_ in self.files}
        }
        files = [File(url, version, size, opened[_root(url)], path) for url, version, size, path in self.files]
        for batch in map_batches(batches.read_batches(files, timeout=self.timeout), self.mappings):
            yield renumbered(batch, self.first)


def _root(url: str) -> str:
    """Returns the bucket that a URL is in, or `/` for a file on this machine."""
    return "/".join(url.split("/", 3)[:3]) if is_remote(url) else "/"


def renumbered(batch: Batch, first: int) -> Batch:
    """Returns the batch with the numbers of its files counted from `first`."""
    numbers = pc.add(batch.lines["file"], pa.scalar(first, pa.int32()))
    return batch._replace(
        lines=batch.lines.set_column(0, "file", numbers),
        rejects=[reject._replace(file=reject.file + first) for reject in batch.rejects],
        ended=[(number + first, why) for number, why in batch.ended],
    )
