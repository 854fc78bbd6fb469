"""The views over tables of messages in BigQuery (docs/contract/warehouse.md#columns)."""

from collections.abc import Callable

from .dlt_internals import BigQueryClient, TPartialTableSchema
from .dlt_internals.clients import hooked
from .native import SEGMENT_TABLE_HINT, shape_of


@hooked
# Without the driver, mypy does not know the type of the base class.
class BigQueryViewsClient(BigQueryClient):  # type: ignore[misc, unused-ignore]
    """dlt's client, which also creates a view over each new table of messages."""

    def sql_after(self, usual: Callable[..., list[str]], partial_table: TPartialTableSchema) -> list[str]:
        """Returns the statements to run after those that create new columns."""
        statements = usual(partial_table)
        name, columns = str(partial_table["name"]), partial_table["columns"]
        is_ours = partial_table.get(SEGMENT_TABLE_HINT) and not self.sql_client.is_staging_dataset_active
        # Only a new table is created with its key column: an existing one has it already.
        if not is_ours or "id" not in columns:
            return statements
        view = shape_of(name, {}, "bigquery").view
        if view is None or view in self.schema.tables:
            return statements
        qualified = self.sql_client.make_qualified_table_name
        return [*statements, f"CREATE OR REPLACE VIEW {qualified(view)} AS SELECT * FROM {qualified(name)}"]
