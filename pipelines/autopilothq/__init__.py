"""Autopilot's email events in DuckDB or any warehouse that dlt loads, as the `autopilothq` schema."""

from .destination import autopilot
from .sources.api.source import api
from .sources.archive.source import archive
from .sources.load import Report
from .sources.profiles.source import profiles
from .telemetry import off_by_default

__all__ = ["Report", "api", "archive", "autopilot", "profiles"]

off_by_default()
