-- Everything in a DuckDB file except the rows, by kind and name. A copy of the file must have the same.
SELECT 'schema' AS kind, schema_name AS name, [comment] AS what FROM duckdb_schemas()
    WHERE database_name = $name AND NOT internal
UNION ALL SELECT 'table', concat_ws('.', schema_name, table_name), [comment, sql] FROM duckdb_tables()
    WHERE database_name = $name AND NOT internal
UNION ALL SELECT 'column', concat_ws('.', schema_name, table_name, column_name),
    [comment, column_index::VARCHAR, data_type, column_default, is_nullable::VARCHAR] FROM duckdb_columns()
    WHERE database_name = $name AND NOT internal
UNION ALL SELECT 'index', concat_ws('.', schema_name, index_name), [comment, table_name, sql] FROM duckdb_indexes()
    WHERE database_name = $name
UNION ALL SELECT 'view', concat_ws('.', schema_name, view_name), [comment, sql] FROM duckdb_views()
    WHERE database_name = $name AND NOT internal
UNION ALL SELECT 'sequence', concat_ws('.', schema_name, sequence_name),
    [comment, start_value::VARCHAR, last_value::VARCHAR, sql] FROM duckdb_sequences() WHERE database_name = $name
UNION ALL SELECT 'macro', concat_ws('.', schema_name, function_name),
    [comment, parameters::VARCHAR, macro_definition] FROM duckdb_functions()
    WHERE database_name = $name AND NOT internal
UNION ALL SELECT 'type', concat_ws('.', schema_name, type_name), [comment, logical_type, labels::VARCHAR]
    FROM duckdb_types() WHERE database_name = $name AND NOT internal
