-- The primary keys of a schema's tables. PostgreSQL's information_schema hides constraints from roles that only read.
SELECT c.relname, a.attname
FROM pg_index i
JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
WHERE n.nspname = %s AND i.indisprimary
ORDER BY c.relname, array_position(i.indkey::int[], a.attnum::int)
