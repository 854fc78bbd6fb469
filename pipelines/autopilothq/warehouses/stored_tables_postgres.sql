-- A row for each unique index of each table of a schema, with the index's columns; a table without one has a row with
-- null. Partial, deferrable and expression indexes do not count. The third column is whether none of the table's rows
-- wait in the staging dataset. The fourth is whether a trigger or a rule, of the table or of a partition at any depth,
-- may leave out rows without an error. The fifth has the types of the columns.
SELECT c.relname, array_agg(a.attname::text) FILTER (WHERE a.attname IS NOT NULL), NOT EXISTS (
    SELECT FROM pg_class s JOIN pg_namespace t ON t.oid = s.relnamespace
    WHERE t.nspname = %s AND s.relname = c.relname AND s.relkind = 'r' AND pg_relation_size(s.oid) > 0), EXISTS (
    SELECT FROM (SELECT c.oid UNION ALL SELECT relid FROM pg_partition_tree(c.oid)) AS part (oid)
    WHERE EXISTS (
        SELECT FROM pg_rewrite  -- a rule on inserts (3)
        WHERE ev_class = part.oid AND ev_type = '3' AND is_instead AND c.relkind <> 'v')
    OR EXISTS (
        SELECT FROM pg_trigger  -- a row (1), before (2), insert (4)
        WHERE tgrelid = part.oid AND tgtype & 7 = 7 AND tgenabled <> 'D' AND NOT tgisinternal)), (
    SELECT jsonb_object_agg(f.attname, format_type(f.atttypid, NULL)) FROM pg_attribute f
    WHERE f.attrelid = c.oid AND f.attnum > 0 AND NOT f.attisdropped)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
    AND i.indexprs IS NULL AND i.indnatts = i.indnkeyatts
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
GROUP BY i.indexrelid, c.oid, c.relname
