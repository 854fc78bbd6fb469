-- The primary keys of a schema's tables, from information_schema.
SELECT c.table_name, k.column_name
FROM {constraints} c
JOIN {key_columns} k
    ON k.constraint_schema = c.constraint_schema
    AND k.constraint_name = c.constraint_name
    AND k.table_name = c.table_name
WHERE c.table_schema = %s AND c.constraint_type = 'PRIMARY KEY'
ORDER BY c.table_name, k.ordinal_position
