"""A local file system that records its calls."""

import os
from typing import Any

from fsspec.implementations.local import LocalFileSystem


class Counting(LocalFileSystem):  # type: ignore[misc]
    """Remembers the folders that were listed."""

    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.listed: list[str] = []

    def ls(self, path: str, detail: bool = False, **options: Any) -> Any:
        self.listed.append(os.path.basename(path))
        return super().ls(path, detail=detail, **options)
