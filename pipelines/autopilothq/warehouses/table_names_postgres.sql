-- The names in a schema that a new table cannot have, each with its kind: a view, a table of messages, or other. Other
-- are tables without a text `id` or a time `received_at`, tables that require columns that messages may lack, foreign
-- tables, which take no MERGE, indexes, sequences and types. PostgreSQL renames an array type if a table needs its
-- name, but not a domain over arrays.
WITH namespace AS (SELECT oid FROM pg_namespace WHERE nspname = %s)
SELECT relname, CASE WHEN relkind IN ('v', 'm') THEN 'view' WHEN relkind IN ('r', 'p') AND (
    SELECT count(*) FROM pg_attribute WHERE attrelid = c.oid AND (
        attname = 'id' AND atttypid IN ('text'::regtype, 'varchar'::regtype)
        OR attname = 'received_at' AND atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype))) = 2
    AND NOT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
        AND attnotnull AND NOT atthasdef AND attidentity = ''
        AND attname NOT IN ('id', 'received_at', 'uuid_ts', 'event', 'event_text'))
    THEN 'messages' ELSE 'other' END
FROM pg_class c WHERE relnamespace IN (SELECT oid FROM namespace)
UNION ALL
SELECT typname, 'other' FROM pg_type
WHERE typnamespace IN (SELECT oid FROM namespace) AND typrelid = 0 AND (typcategory <> 'A' OR typtype = 'd')
