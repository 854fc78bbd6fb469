-- The tables of a schema whose row-level security applies to the user, so that it may hide rows.
SELECT c.relname
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND row_security_active(c.oid)
ORDER BY c.relname
