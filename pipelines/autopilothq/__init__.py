"""Autopilot's email events in DuckDB or any warehouse that dlt loads, as the `autopilothq` schema."""

from .destination import autopilot
from .source import Report, api, archive, profiles
from .telemetry import off_by_default

__all__ = ["Report", "api", "archive", "autopilot", "profiles"]

off_by_default()
