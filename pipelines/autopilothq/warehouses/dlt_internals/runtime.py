"""dlt's runtime: what it starts as it is imported."""

from dlt.common.runtime.run_context import active
from dlt.common.runtime.telemetry import stop_telemetry


def restart_without_telemetry() -> None:
    """Stops the telemetry that the import of dlt started, and applies the settings as they are now."""
    stop_telemetry()
    active().initialize_runtime()
