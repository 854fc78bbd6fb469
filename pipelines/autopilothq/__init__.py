"""Autopilot's email events in DuckDB or any warehouse that dlt loads, as the `autopilothq` schema."""

from .destination import autopilot
from .source import Report, archive

__all__ = ["Report", "archive", "autopilot"]
