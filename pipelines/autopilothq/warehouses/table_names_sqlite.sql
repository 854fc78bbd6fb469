-- The names in a schema that a new table cannot have, each with its kind: a view, a table of messages, or another
-- table, which lacks a text `id` or a time `received_at`, or requires columns that messages may lack.
SELECT lower(name), CASE WHEN type = 'view' THEN 'view' WHEN (
        SELECT count(*) FROM pragma_table_info(listed.name, listed.schema) AS c
        WHERE lower(c.name) = 'id' AND c.type IN ('TEXT', 'VARCHAR')
        OR lower(c.name) = 'received_at' AND c.type IN ('DATETIME', 'TIMESTAMP')) = 2
    AND NOT EXISTS (
        SELECT 1 FROM pragma_table_info(listed.name, listed.schema) AS c
        WHERE c."notnull" AND c.dflt_value IS NULL
        AND lower(c.name) NOT IN ('id', 'received_at', 'uuid_ts', 'event', 'event_text'))
    THEN 'messages' ELSE 'other' END
FROM pragma_table_list AS listed WHERE schema = %s
