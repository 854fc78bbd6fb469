-- The names of a schema that no new table of DuckDB can have, and whether each is a view's: those of views, and of tables
-- that are none of messages, because they lack a text `id` or a time `received_at`.
WITH of_views AS (
    SELECT view_name AS name, true AS is_view, schema_name FROM duckdb_views()
    WHERE database_name = current_database()),
of_others AS (
    SELECT table_name AS name, false AS is_view, schema_name FROM duckdb_columns()
    WHERE database_name = current_database() GROUP BY ALL HAVING count(*) FILTER (
        lower(column_name) = 'id' AND data_type = 'VARCHAR'
        OR lower(column_name) = 'received_at' AND starts_with(data_type, 'TIMESTAMP')) < 2)
SELECT lower(name), is_view FROM (FROM of_views UNION ALL FROM of_others) WHERE schema_name = %s
