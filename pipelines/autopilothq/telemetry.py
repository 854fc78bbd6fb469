"""Turns off dlt's telemetry, its usage reports to its makers, unless it is configured."""

TELEMETRY_SETTING = "runtime.dlthub_telemetry"


def off_by_default() -> None:
    """Turns dlt's telemetry off for this process, unless dlt's configuration or the environment sets it."""
    import dlt

    from .warehouses.dlt_internals.runtime import restart_without_telemetry

    if dlt.config.get(TELEMETRY_SETTING) is None:
        dlt.config[TELEMETRY_SETTING] = False
        restart_without_telemetry()
