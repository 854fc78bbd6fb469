"""dlt's reports of usage to its makers are off unless somebody has turned them on."""

import dlt

from .warehouses.dlt_internals import active, stop_telemetry

SETTING = "runtime.dlthub_telemetry"


def off_by_default() -> None:
    """Turns dlt's telemetry off for this process, where neither its settings nor the environment speak of it."""
    if dlt.config.get(SETTING) is None:
        dlt.config[SETTING] = False
        # It was started when dlt was imported.
        stop_telemetry()
        active().initialize_runtime()
