"""Renames the properties of mapped events in the batches of an archive."""

from collections.abc import Iterable, Iterator

import pyarrow as pa

from ...segment.mapping import Mappings, mapped_line
from ...segment.message import Batch
from ...segment.naming import event_key
from ..event_filter import read_events


def map_batches(batches: Iterable[Batch], mappings: Mappings) -> Iterator[Batch]:
    """Yields the batches with the properties of mapped events renamed; other lines stay as they are."""
    renaming = {source: mapping for source, mapping in mappings.items() if mapping.properties}
    if not renaming:
        yield from batches
        return
    for batch in batches:
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
