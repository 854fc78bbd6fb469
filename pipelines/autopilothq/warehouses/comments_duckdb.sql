-- The comments of a schema's tables, views and columns.
SELECT table_name, column_name, comment FROM (
    SELECT schema_name, table_name, NULL AS column_name, comment FROM duckdb_tables()
    WHERE database_name = current_database()
    UNION ALL SELECT schema_name, view_name, NULL, comment FROM duckdb_views() WHERE database_name = current_database()
    UNION ALL SELECT schema_name, table_name, column_name, comment FROM duckdb_columns()
    WHERE database_name = current_database()
) WHERE schema_name = %s AND comment IS NOT NULL
