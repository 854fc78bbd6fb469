"""Autopilot's email events in DuckDB or any warehouse that dlt loads, as the `autopilothq` schema."""

from .destination import autopilot
from .source import Report, api, archive, profiles

__all__ = ["Report", "api", "archive", "autopilot", "profiles"]
