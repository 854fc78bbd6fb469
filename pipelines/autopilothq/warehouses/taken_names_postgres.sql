-- The names of a schema that no new table of PostgreSQL can have: those of views, indexes, sequences and types. A type
-- of arrays gives its name up.
WITH namespace AS (SELECT oid FROM pg_namespace WHERE nspname = %s)
SELECT relname FROM pg_class WHERE relnamespace IN (SELECT oid FROM namespace) AND relkind NOT IN ('r', 'p', 'f')
UNION
SELECT typname FROM pg_type
WHERE typnamespace IN (SELECT oid FROM namespace) AND typrelid = 0 AND typcategory <> 'A'
