-- A load in partitions.

-- name: partition_rows
-- Writes the rows of a query to a folder of files for each partition, which a digest of a column decides.
COPY (SELECT {select}, hash({key}) % {partitions} AS part FROM ({query}))
TO {folder} (FORMAT parquet, PARTITION_BY (part))

-- name: with_id
-- Rows about messages (`seq`), with the id of the message.
SELECT s.*, m.id FROM ({source}) s JOIN (SELECT seq, id FROM {messages} WHERE NOT irregular) m USING (seq)

-- name: refused_lines
-- The lines of messages that the destination refused, or of which it refused a row.
SELECT m.seq, m.id, l.text FROM lines l JOIN {messages} m USING (seq)
WHERE NOT m.irregular AND (m.id IN (SELECT id FROM refused_ids) OR m.user_id IN (SELECT id FROM refused_persons)
    OR m.group_id IN (SELECT id FROM refused_persons))

-- name: tables_of_stored
-- The tables of the messages that are stored.
SELECT table_number FROM messages SEMI JOIN stored_in USING (seq)
UNION SELECT table_number FROM stored_in
