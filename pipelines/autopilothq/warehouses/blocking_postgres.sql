-- The table that a server process waits for, and the process that blocks it.
SELECT n.nspname || '.' || c.relname, b.pid, a.usename, a.application_name, host(a.client_addr), a.state
FROM unnest(pg_blocking_pids(%(pid)s)) AS b (pid) LEFT JOIN pg_stat_activity a ON a.pid = b.pid
LEFT JOIN pg_locks l ON l.pid = %(pid)s AND NOT l.granted
LEFT JOIN pg_class c ON c.oid = l.relation LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
LIMIT 1
