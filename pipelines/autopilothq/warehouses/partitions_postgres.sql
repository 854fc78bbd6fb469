-- The partitions in a schema whose partitioned table is in the same schema and readable by the user.
SELECT p.relname
FROM pg_class p
JOIN pg_namespace n ON n.oid = p.relnamespace
JOIN pg_inherits ON inhrelid = p.oid
JOIN pg_class whole ON whole.oid = inhparent
WHERE n.nspname = %s AND p.relispartition AND whole.relnamespace = p.relnamespace
    AND has_table_privilege(whole.oid, 'SELECT')
