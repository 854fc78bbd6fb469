-- The columns of the tables and views of a schema, with their types, in their order. A partition is left out if the
-- user can read the partitioned table itself in this schema.
SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns
WHERE table_schema = $1 AND NOT EXISTS (
    SELECT FROM pg_class p JOIN pg_inherits ON inhrelid = p.oid JOIN pg_class whole ON whole.oid = inhparent
    WHERE p.relispartition AND p.relname = table_name AND p.relnamespace = whole.relnamespace
        AND p.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = table_schema)
        AND has_table_privilege(whole.oid, 'SELECT'))
ORDER BY table_name, ordinal_position
