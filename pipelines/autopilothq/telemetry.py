"""Turns off dlt's usage reports to its makers, unless they were turned on."""

import dlt

from .warehouses.dlt_internals import active, stop_telemetry

TELEMETRY_SETTING = "runtime.dlthub_telemetry"


def off_by_default() -> None:
    """Turns dlt's telemetry off for this process, unless its settings or the environment decide about it."""
    if dlt.config.get(TELEMETRY_SETTING) is None:
        dlt.config[TELEMETRY_SETTING] = False
        # It was started when dlt was imported.
        stop_telemetry()
        active().initialize_runtime()
