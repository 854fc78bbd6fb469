"""File systems: a local one that records its calls, and a bucket."""

import os
from collections.abc import Mapping
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem


class Counting(LocalFileSystem):  # type: ignore[misc]
    """A local file system that records the names of the folders that were listed."""

    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.listed: list[str] = []

    def ls(self, path: str, detail: bool = False, **options: Any) -> Any:
        self.listed.append(os.path.basename(path))
        return super().ls(path, detail=detail, **options)


class Objects(AbstractFileSystem):  # type: ignore[misc]
    """A bucket, listed with S3's own call. `sizes` has the sizes of its objects, by their names with the bucket's."""

    cachable = False
    protocol = "s3"

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.sizes = sizes

    def split_path(self, path: str) -> list[str]:
        return path.split("/", 1)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        if path in self.sizes:
            return {"name": path, "type": "file", "size": self.sizes[path]}
        if any(name.startswith(f"{path}/") for name in self.sizes):
            return {"name": path, "type": "directory", "size": 0}
        raise FileNotFoundError(path)

    def call_s3(self, *_: Any, **options: Any) -> dict[str, Any]:
        start = f"{options['Bucket']}/{options['Prefix']}"
        below = {name[len(start) :]: size for name, size in self.sizes.items() if name.startswith(start)}
        folders = {f"{options['Prefix']}{name.partition('/')[0]}/" for name in below if "/" in name}
        keys = [{"Key": f"{options['Prefix']}{name}", "Size": size} for name, size in below.items() if "/" not in name]
        return {"CommonPrefixes": [{"Prefix": prefix} for prefix in sorted(folders)], "Contents": keys}
