-- Makes cut texts of adopted rows whole (docs/contract/adopt.md#cut-text).

-- name: first_messages
-- One message for each id, whether it is stored or not.
CREATE OR REPLACE VIEW first_messages AS
FROM messages ANTI JOIN (FROM duplicates ANTI JOIN stored_in USING (seq)) USING (seq)

-- name: whole_cells
-- Texts of some columns that are longer than a cut one; `cells` are structs of a column's `name` and `text`.
SELECT {table_number} AS table_number, seq, id, cell.name AS name, cell.text AS text
FROM (SELECT seq, id, unnest([{cells}]) AS cell FROM first_messages WHERE {where})
WHERE length(cell.text) > {cut}

-- name: whole_rows
-- The same for values that are buffered as rows; `text_columns` maps their columns to the names in the table.
SELECT {table_number} AS table_number, seq, id, name, text
FROM (SELECT m.seq, m.id, c.name, as_text(x.value) AS text
    FROM extras x JOIN text_columns c ON c."column" = x."column"
    JOIN (SELECT seq, id FROM first_messages WHERE {where}) m ON m.seq = x.seq)
WHERE length(text) > {cut}

-- name: cut_texts
-- `stored` are the destination's rows. Rows that a load of messages stored are left out: their texts are whole.
SELECT w.* FROM whole_texts w
JOIN (SELECT id, unnest([{cells}]) AS cell FROM stored
    WHERE ({any_cut}) AND epoch_ms(uuid_ts) NOT IN (SELECT ms FROM loads_of_messages)) s
ON w.table_number = {table_number} AND w.id = s.id AND w.name = s.cell.name
WHERE length(s.cell.text) = {cut} AND starts_with(w.text, s.cell.text)

-- name: mended_tables
SELECT table_number, count(DISTINCT id) FROM mends GROUP BY 1 ORDER BY 1

-- name: mended_lengths
SELECT name, max(length(text)) FROM mends WHERE table_number = $table_number GROUP BY 1

-- name: touched_ids
-- The ids of the rows that this load mends, and of those that it makes, which a killed load may have stored already.
SELECT id FROM mends WHERE table_number = {table_number} UNION SELECT id FROM kept WHERE {where}

-- name: touched
FROM stored SEMI JOIN ({touched}) t USING (id)

-- name: sizes
-- The bytes of the whole texts of each row that is mended.
SELECT seq, sum(strlen(text))::BIGINT AS size FROM mends WHERE table_number = {table_number} GROUP BY seq ORDER BY seq

-- name: unmended
FROM {mended} ANTI JOIN (SELECT id FROM mends WHERE table_number = {table_number}) m USING (id)

-- name: part
-- Some of the rows that are mended, and their texts.
CREATE OR REPLACE TABLE mended_part AS
FROM {mended} SEMI JOIN (SELECT id FROM mends WHERE table_number = {table_number} AND {part}) m USING (id);
CREATE OR REPLACE TABLE mends_of_part AS FROM mends WHERE table_number = {table_number} AND {part}

-- name: mend_texts
UPDATE mended_part SET {column} = m.text FROM mends_of_part m WHERE m.name = {literal} AND m.id = mended_part.id
