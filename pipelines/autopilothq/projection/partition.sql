-- A load in partitions.

-- name: partition_rows
-- Writes a query's rows to one folder of files per partition; a digest of a column decides the partition.
COPY (SELECT {select}, hash({key}) % {partitions} AS part FROM ({query}))
TO {folder} (FORMAT parquet, PARTITION_BY (part))

-- name: with_id
-- Rows that belong to messages (`seq`), with the ids of these messages.
SELECT s.*, m.id FROM ({source}) s JOIN (SELECT seq, id FROM {messages} WHERE NOT irregular) m USING (seq)

-- name: refused_lines
-- The lines of messages that the destination refused, or that may be about a person whose row it refused.
SELECT m.seq, m.id, l.text FROM lines l JOIN {messages} m USING (seq)
WHERE NOT m.irregular AND (m.id IN (SELECT id FROM refused_ids) OR m.user_id IN (SELECT id FROM refused_persons)
    OR m.group_id IN (SELECT id FROM refused_persons))

-- name: tables_of_stored
-- The tables of those messages of this load that are stored, and the tables in which they are stored.
SELECT table_number FROM messages SEMI JOIN stored_in USING (seq)
UNION SELECT table_number FROM stored_in
