-- The views and tables of a schema, any of which may have a model's name, with the views' comments; null for tables.
SELECT c.relname, CASE WHEN c.relkind = 'v' THEN coalesce(obj_description(c.oid, 'pg_class'), '') END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relkind IN ('r', 'v', 'm', 'p', 'f')
