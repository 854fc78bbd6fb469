-- The names of a schema that no new table of PostgreSQL can have, and whether each is a view's: those of views, indexes,
-- sequences and types, and of tables that are none of messages, because they lack a text `id` or a time `received_at`. A
-- type of arrays gives its name up.
WITH namespace AS (SELECT oid FROM pg_namespace WHERE nspname = %s)
SELECT relname, relkind IN ('v', 'm') FROM pg_class c
WHERE relnamespace IN (SELECT oid FROM namespace) AND (relkind NOT IN ('r', 'p', 'f') OR (
    SELECT count(*) FROM pg_attribute WHERE attrelid = c.oid AND (
        attname = 'id' AND atttypid IN ('text'::regtype, 'varchar'::regtype)
        OR attname = 'received_at' AND atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype))) < 2)
UNION ALL
SELECT typname, false FROM pg_type
WHERE typnamespace IN (SELECT oid FROM namespace) AND typrelid = 0 AND typcategory <> 'A'
