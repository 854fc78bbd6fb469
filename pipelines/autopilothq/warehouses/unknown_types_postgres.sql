-- The columns of a schema's tables that dlt wrongly reports as plain text: those of types that it does not know, and
-- texts with a collation under which different texts may be equal. The last column is whether PostgreSQL classes the
-- type as a string type. dlt knows a domain by its base type, but reports a domain over another domain as text.
-- Servers before PostgreSQL 12, and others with its protocol, have no `collisdeterministic`.
WITH RECURSIVE texts AS (
    SELECT oid FROM pg_type WHERE oid IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype)
    UNION ALL SELECT domains.oid FROM pg_type domains JOIN texts ON typbasetype = texts.oid
)
SELECT relname::text, attname::text,
    format_type(atttypid, atttypmod) || coalesce(' COLLATE ' || quote_ident(collname), ''), typcategory = 'S'
FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid JOIN pg_type t ON t.oid = atttypid
LEFT JOIN pg_collation l ON l.oid = attcollation AND to_jsonb(l) ->> 'collisdeterministic' = 'false'
WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) AND attnum > 0 AND NOT attisdropped AND (
    l.oid IS NOT NULL OR t.oid NOT IN (SELECT oid FROM texts) AND coalesce(nullif(typbasetype, 0), t.oid) NOT IN (
        'bool'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype, 'float8'::regtype,
        'date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype))
