"""dlt's BigQuery destination, with the views that Segment's documentation recommends for queries: `<table>_view`."""

from typing import TYPE_CHECKING

from dlt.destinations import bigquery as dlt_bigquery

from .configured_once import ConfiguredOnce

if TYPE_CHECKING:
    from .dlt_internals import BigQueryClient


class bigquery(ConfiguredOnce, dlt_bigquery):  # noqa: N801 - destinations are named like functions
    """BigQuery as a destination, named `bigquery` in dlt's configuration."""

    @property
    def destination_type(self) -> str:
        """dlt's name for this type of destination."""
        return "dlt.destinations.bigquery"

    @property
    def client_class(self) -> "type[BigQueryClient]":
        """The client that creates the views."""
        from .bigquery_client import BigQueryViewsClient  # needs the driver, which not everyone has

        return BigQueryViewsClient
