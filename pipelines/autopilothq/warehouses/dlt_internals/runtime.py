"""dlt's runtime: the telemetry that its import starts, the files of its configuration, and how often jobs are tried."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dlt
from dlt.common.configuration.container import Container
from dlt.common.destination import Destination
from dlt.common.pipeline import PipelineContext
from dlt.common.runtime.run_context import active
from dlt.common.runtime.telemetry import stop_telemetry
from dlt.load.configuration import LoaderConfiguration


def restart_without_telemetry() -> None:
    """Stops the telemetry that the import of dlt started, and applies the settings as they are now."""
    stop_telemetry()
    active().initialize_runtime()


def configuration_files() -> Iterator[dict[str, Any]]:
    """Yields the content of each file of dlt's configuration."""
    for provider in dlt.config.config_providers:
        if provider.name.endswith(".toml"):
            yield provider._config_doc  # type: ignore[attr-defined]


def active_destination() -> Destination[Any, Any] | None:
    """Returns the destination of the pipeline that was made or run last; None if there is no pipeline."""
    context = Container()[PipelineContext]
    return context.pipeline().destination if context.is_active() else None


@contextmanager
def jobs_tried_once() -> Iterator[None]:
    """Makes dlt try each job of a load once in the block, whatever `load.raise_on_max_retries` is set to.

    Setting `dlt.config` would not do: an environment variable or the pipeline's own section would override it.
    """
    on_resolved = LoaderConfiguration.on_resolved

    def resolved(config: LoaderConfiguration) -> None:
        on_resolved(config)
        config.raise_on_max_retries = 1

    setattr(LoaderConfiguration, "on_resolved", resolved)  # noqa: B010
    try:
        yield
    finally:
        setattr(LoaderConfiguration, "on_resolved", on_resolved)  # noqa: B010
