"""Segment's raw archive. Other packages list its files with `list_files`."""

from .discover import list_files

__all__ = ["list_files"]
