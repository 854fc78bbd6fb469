-- Decides which rows of adopted tables are kept and rejected. `keys` are the rows of one or several tables (`seq`,
-- `id`, `received_at`), `duplicates` are those that are not kept.

-- name: books
CREATE TABLE track_duplicates (seq BIGINT);
CREATE TABLE counts (file BIGINT, rows BIGINT, duplicates BIGINT, first TIMESTAMPTZ, last TIMESTAMPTZ);
CREATE TABLE adopted_discards (
    table_name VARCHAR, row_id VARCHAR, column_name VARCHAR, value VARCHAR, reason VARCHAR, received_at TIMESTAMPTZ);

-- name: keys
CREATE OR REPLACE VIEW {name} AS SELECT * FROM ({rows}) ANTI JOIN rejects USING (seq)

-- name: within
-- Of the rows with the same id, the earliest is kept.
INSERT INTO {duplicates} SELECT seq FROM (
    SELECT seq, row_number() OVER (PARTITION BY id ORDER BY received_at NULLS LAST, seq) AS rank
    FROM {keys} k SEMI JOIN (SELECT hash(id) AS h FROM {keys} GROUP BY h HAVING count(*) > 1) again
        ON again.h = hash(k.id))
WHERE rank > 1

-- name: stored
INSERT INTO {duplicates} SELECT k.seq FROM stored s JOIN {keys} k ON k.id = s.id

-- name: counted
INSERT INTO counts
SELECT file_of(seq), count(*), count(d.seq), min(received_at), max(received_at)
FROM {keys} LEFT JOIN (SELECT DISTINCT seq FROM {duplicates}) d USING (seq) GROUP BY 1

-- name: refused
INSERT INTO rejects
SELECT seq, sha256(raw), 'unreadable', error, raw
FROM ({raw}) JOIN (SELECT seq, error FROM {keys} JOIN refused_rows USING (id)) USING (seq)

-- name: long_keys
INSERT INTO rejects
SELECT seq, sha256(raw), 'unreadable', format($message, strlen({key})), raw
FROM ({raw}) JOIN {rows} USING (seq) ANTI JOIN rejects USING (seq)

-- name: nameless
-- Rows of `users` and `accounts` without an id, which cannot be merged.
INSERT INTO rejects
SELECT seq, sha256(raw), 'no_id', $message, raw FROM ({raw})

-- name: suppressed
INSERT INTO rejects SELECT seq, sha256(concat('suppressed', id)), 'suppressed', $message, '' FROM suppressed

-- name: orphans
CREATE OR REPLACE VIEW orphans AS SELECT seq, id FROM ({rows}) ANTI JOIN rejects USING (seq) WHERE {of_events}

-- name: with_event_row
-- Rows of `tracks` (`orphans`) that their event's table has, too.
INSERT INTO duplicates SELECT o.seq FROM orphans o SEMI JOIN {keys} k USING (id)

-- name: stored_event_row
INSERT INTO duplicates SELECT o.seq FROM stored s JOIN orphans o ON o.id = s.id

-- name: no_event_row
INSERT INTO rejects
SELECT seq, sha256(raw), 'no_event_row', $message, raw
FROM ({raw}) SEMI JOIN (SELECT seq FROM orphans ANTI JOIN duplicates USING (seq)) o USING (seq)

-- name: misfits
INSERT INTO adopted_discards
SELECT $table_name, k.id, v."column", v.value, v.reason, k.received_at
FROM ({misfits}) v JOIN {keys} k USING (seq) ANTI JOIN {duplicates} d USING (seq)

-- name: too_wide
-- For rows that are too wide for the destination: the position of the first value that does not fit, in a column whose
-- name no column of the rows can have.
CREATE OR REPLACE TABLE {name} AS
SELECT seq, min(position) AS "first:" FROM (
    SELECT seq, position, sum(bytes) OVER (PARTITION BY seq ORDER BY position) AS bytes FROM (
        SELECT seq, unnest(sizes) AS bytes, generate_subscripts(sizes, 1) AS position
        FROM (SELECT seq, [{sizes}] AS sizes FROM ({rows})) WHERE list_sum(sizes) > {room}))
WHERE bytes > {room} GROUP BY seq

-- name: discard_too_wide
-- The table is read by a subquery, because by itself it would have a `rowid`, which may be a column of the rows.
INSERT INTO adopted_discards
SELECT $table_name, id, v."column", v.value, 'row_too_wide', received_at
FROM (SELECT id, received_at, "first:", unnest([{values}]) AS v FROM ({rows}) JOIN (FROM {name}) w USING (seq))
WHERE v.value IS NOT NULL AND v.position >= "first:"

-- name: discarded
SELECT sha256(concat_ws(chr(10), table_name, row_id, column_name, value)) AS id, *, {loaded_at} AS discarded_at
FROM (FROM adopted_discards UNION ALL FROM discards_of_latest)
QUALIFY row_number() OVER (PARTITION BY id ORDER BY reason) = 1

-- name: file_counts
SELECT file, coalesce(c.rows, 0) + coalesce(r.rejected, 0), coalesce(c.rows - c.duplicates, 0),
    coalesce(c.duplicates, 0), coalesce(r.rejected, 0), first, last
FROM counts c FULL JOIN (SELECT file_of(seq) AS file, count(*) AS rejected FROM rejects GROUP BY 1) r USING (file)

-- name: layer_ids
CREATE OR REPLACE TABLE layer_ids AS SELECT id, "layer:" FROM layers

-- name: stored_layer
-- The stored rows of `users` or `accounts` for the ids of `layers`, below what this load makes of messages.
SELECT *, CASE WHEN id IN (SELECT id FROM layer_ids WHERE "layer:" = 0) THEN 2 ELSE -1 END AS "layer:"
FROM stored SEMI JOIN (SELECT id FROM layer_ids WHERE "layer:" = 1) l USING (id)

-- name: layer_parts
-- The ids of `layers`, in parts that are so small that the engine can make the rows of a part at once.
CREATE OR REPLACE TABLE layer_parts AS
SELECT id, (sum(size) OVER (ORDER BY id) - size) // {room} AS part
FROM (SELECT id, sum({bytes}) AS size FROM layers GROUP BY id)

-- name: some_layers
FROM layers SEMI JOIN (FROM layer_parts WHERE part BETWEEN {lowest} AND {highest}) p USING (id)

-- name: layers_of_part
CREATE OR REPLACE TABLE layers_of_part AS
FROM some_layers SEMI JOIN (FROM layer_parts WHERE part = {part}) p USING (id)

-- name: first_of_layers
WITH first AS (SELECT {select} FROM {layers} GROUP BY id)
FROM first WHERE id IN (SELECT id FROM {layers} WHERE "layer:" = 0)
    OR id IN (SELECT id FROM (SELECT {compared} FROM first EXCEPT SELECT {compared} FROM {layers} WHERE "layer:" = -1))

-- name: unchanged
-- Rows of `users` or `accounts` that change nothing: the row that is made of all layers is stored already.
INSERT INTO duplicates
SELECT seq FROM {keys} ANTI JOIN duplicates USING (seq) SEMI JOIN (
    (SELECT id FROM {layers} WHERE "layer:" = -1 EXCEPT SELECT id FROM first_of_layers)
    UNION ALL SELECT id FROM (
        SELECT {compared} FROM first_of_layers INTERSECT SELECT {compared} FROM {layers} WHERE "layer:" = 2)
) same USING (id)

-- name: adopted_ids
-- For a comparison: the ids of a table, each once, with the first time at which it was received; and each row without
-- an id.
CREATE OR REPLACE TABLE adopted_ids AS
SELECT id, min(received_at) AS received_at FROM ({rows}) WHERE id IS NOT NULL GROUP BY id
UNION ALL SELECT id, received_at FROM ({rows}) WHERE id IS NULL

-- name: stored_ids
CREATE OR REPLACE TABLE stored_ids (id VARCHAR, received_at TIMESTAMPTZ)

-- name: add_stored_ids
INSERT INTO stored_ids SELECT id, received_at FROM stored SEMI JOIN adopted_ids USING (id)

-- name: days
SELECT day, coalesce(a.rows, 0), coalesce(s.rows, 0)
FROM (SELECT coalesce(strftime(received_at AT TIME ZONE 'UTC', '%Y-%m-%d'), 'no time') AS day, count(*) AS rows
    FROM adopted_ids GROUP BY 1) a
FULL JOIN (SELECT coalesce(strftime(received_at AT TIME ZONE 'UTC', '%Y-%m-%d'), 'no time') AS day, count(*) AS rows
    FROM stored_ids GROUP BY 1) s USING (day)
ORDER BY day <> 'no time', day

-- name: sums
-- The numbers of rows on both sides, and the sums of 48 bits of their ids' digests.
SELECT (SELECT count(*) FROM adopted_ids), (SELECT count(*) FROM stored_ids),
    (SELECT coalesce(sum((md5_number(coalesce(id, '')) >> 80)::HUGEINT), 0) FROM adopted_ids),
    (SELECT coalesce(sum((md5_number(id) >> 80)::HUGEINT), 0) FROM stored_ids)
