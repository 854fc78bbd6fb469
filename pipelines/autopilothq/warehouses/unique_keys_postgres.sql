-- The tables of a schema, each with the columns of a unique index that tells rows apart by its columns alone, as often as
-- it has such an index, and once with null where it has none.
SELECT c.relname, array_agg(a.attname::text) FILTER (WHERE a.attname IS NOT NULL) FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
    AND i.indexprs IS NULL AND i.indnatts = i.indnkeyatts
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
WHERE n.nspname = %s AND c.relkind IN ('r', 'p')
GROUP BY i.indexrelid, c.relname
