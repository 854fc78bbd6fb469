-- The names in a schema that a new table cannot have, each with its kind: a view, a table of messages, or another
-- table, which lacks a text `id` or a time `received_at`, or requires columns that messages may lack.
-- `duckdb_columns()` lists columns of views, too, which may be those of messages, or of a dropped table.
SELECT lower(name), what FROM (
    SELECT view_name AS name, 'view' AS what, schema_name FROM duckdb_views()
    WHERE database_name = current_database()
    UNION ALL
    SELECT table_name, if(count(*) FILTER (
        lower(column_name) = 'id' AND data_type = 'VARCHAR'
        OR lower(column_name) = 'received_at' AND starts_with(data_type, 'TIMESTAMP')) = 2
        AND NOT bool_or(NOT is_nullable AND column_default IS NULL
            AND lower(column_name) NOT IN ('id', 'received_at', 'uuid_ts', 'event', 'event_text')),
        'messages', 'other'), schema_name
    FROM duckdb_columns() SEMI JOIN duckdb_tables() USING (database_name, schema_name, table_name)
    WHERE database_name = current_database() GROUP BY table_name, schema_name)
WHERE schema_name = %s
