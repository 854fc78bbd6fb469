-- The columns of each unique index of a schema that tells rows apart by their columns alone.
SELECT c.relname, array_agg(a.attname::text) FROM pg_index i
JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
WHERE n.nspname = %s AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
    AND i.indexprs IS NULL AND i.indnatts = i.indnkeyatts
GROUP BY i.indexrelid, c.relname
