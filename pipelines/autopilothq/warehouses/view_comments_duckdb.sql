-- The views and tables of a schema, any of which may have a model's name, with the views' comments; null for tables.
SELECT view_name, coalesce(comment, '') FROM duckdb_views()
WHERE schema_name = %s AND database_name = current_database()
UNION ALL SELECT table_name, NULL FROM duckdb_tables() WHERE schema_name = %s AND database_name = current_database()
