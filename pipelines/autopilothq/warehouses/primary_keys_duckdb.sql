-- The primary keys of a schema's tables. DuckDB's information_schema also has those of other attached databases.
SELECT table_name, unnest(constraint_column_names) FROM duckdb_constraints()
WHERE database_name = current_database() AND schema_name = %s AND constraint_type = 'PRIMARY KEY'
ORDER BY table_name
