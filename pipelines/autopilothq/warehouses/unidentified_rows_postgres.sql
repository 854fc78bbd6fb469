-- The tables of a schema whose rows cannot be changed or deleted, because a publication publishes such changes of the
-- table, but nothing identifies its rows. Tables whose owner chose REPLICA IDENTITY NOTHING are left out.
SELECT relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname = %s AND relkind = 'r' AND relreplident = 'd'
    AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)
    AND EXISTS (
        SELECT FROM pg_publication_tables t JOIN pg_publication USING (pubname)
        WHERE schemaname = nspname AND tablename = relname AND (pubupdate OR pubdelete))
