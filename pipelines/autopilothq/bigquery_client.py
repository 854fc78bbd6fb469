"""The views of the contract in BigQuery."""

from dlt.common.schema.typing import TPartialTableSchema
from dlt.destinations.impl.bigquery.bigquery import BigQueryClient

from .native import HINT, shape_of


class Client(BigQueryClient):
    """dlt's, which makes a view over each table of messages as it makes the table."""

    def _get_table_post_update_sql(self, partial_table: TPartialTableSchema) -> list[str]:
        made = super()._get_table_post_update_sql(partial_table)
        name, columns = str(partial_table["name"]), partial_table["columns"]
        is_ours = partial_table.get(HINT) and not self.sql_client.is_staging_dataset_active
        # A table that is there has its key: only a new one is made with it.
        if not is_ours or "id" not in columns:
            return made
        view = shape_of(name, {}, "bigquery").view
        if view is None or view in self.schema.tables:
            return made
        named = self.sql_client.make_qualified_table_name
        return [*made, f"CREATE OR REPLACE VIEW {named(view)} AS SELECT * FROM {named(name)}"]
