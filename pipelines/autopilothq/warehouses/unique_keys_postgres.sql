-- The tables of a schema, each with the columns of a unique index that tells rows apart by its columns alone, as often as
-- it has such an index, and once with null where it has none, or has rows in the staging dataset; and whether all its
-- columns have types that files have.
SELECT c.relname, array_agg(a.attname::text) FILTER (WHERE a.attname IS NOT NULL), NOT EXISTS (
    SELECT FROM pg_attribute f WHERE f.attrelid = c.oid AND f.attnum > 0 AND NOT f.attisdropped
    AND format_type(f.atttypid, NULL) NOT IN (
        'text', 'character varying', 'character', 'bpchar', 'bigint', 'boolean', 'timestamp with time zone'))
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN (SELECT s.relname FROM pg_class s JOIN pg_namespace t ON t.oid = s.relnamespace
    WHERE t.nspname = %s AND s.relkind = 'r' AND pg_relation_size(s.oid) > 0) staged ON staged.relname = c.relname
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
    AND i.indexprs IS NULL AND i.indnatts = i.indnkeyatts AND staged.relname IS NULL
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
GROUP BY i.indexrelid, c.oid, c.relname
