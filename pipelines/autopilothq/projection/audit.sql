-- The bookkeeping tables.

-- name: file_counts
SELECT file, coalesce(messages, 0) + coalesce(rejected, 0), coalesce(messages - duplicates, 0),
    coalesce(duplicates, 0), coalesce(rejected, 0), first, last, coalesce(mended, 0)
FROM (
    SELECT file_of(seq) AS file, count(*) AS messages, count(d.seq) AS duplicates,
        min(received_at) AS first, max(received_at) AS last
    FROM messages LEFT JOIN duplicates d USING (seq) GROUP BY 1) m
FULL JOIN (SELECT file_of(seq) AS file, count(*) AS rejected FROM rejects GROUP BY 1) r USING (file)
LEFT JOIN (SELECT file_of(seq) AS file, count(DISTINCT (seq, name)) AS mended FROM mends GROUP BY 1) w USING (file)

-- name: counted_again
-- The kept messages of each file that earlier loads have counted: `counted` has their tables.
SELECT number, count(*) FROM kept JOIN counted ON number = file_of(seq)
WHERE list_contains(names, CASE kind {tables} ELSE coalesce(slug, '') END) <> but GROUP BY 1

-- name: rejects_by_reason
SELECT reason, count(*) FROM rejects GROUP BY 1 ORDER BY 2 DESC, 1

-- name: rejected
-- The rows of `_rejects`; `files` are the files of the load. Each line of each file has a row of its own.
CREATE OR REPLACE TABLE rejected AS
SELECT * EXCLUDE (seq) FROM (
    SELECT file, line, reason, message, raw, $loaded_at::TIMESTAMPTZ AS rejected_at, seq,
        CASE WHEN reason = 'suppressed' THEN id ELSE sha256(concat_ws(chr(10), file, line, id)) END AS id
    FROM (SELECT *, line_of(seq) AS line FROM rejects) r JOIN files ON files.number = file_of(r.seq))
QUALIFY row_number() OVER (PARTITION BY id ORDER BY seq, reason) = 1

-- name: discarded
-- The rows of `_discards`. A value that neither `tracks` nor the event's table takes is reported for the event's table.
CREATE OR REPLACE TABLE discarded AS
SELECT sha256(concat_ws(chr(10), table_name, row_id, column_name, value)) AS id, *,
    $loaded_at::TIMESTAMPTZ AS discarded_at
FROM (
    SELECT coalesce(d.table_name, n.name) AS table_name, m.id AS row_id, column_name, value,
        reason, m.received_at::TIMESTAMPTZ AS received_at
    FROM discards d JOIN messages m USING (seq) JOIN table_names n USING (table_number)
    WHERE seq NOT IN (FROM duplicates) OR seq IN (FROM discarded_again)
    QUALIFY row_number() OVER (
        PARTITION BY seq, column_name, value, reason
        ORDER BY coalesce(d.table_name, n.name) = 'tracks', d.table_name) = 1
    UNION ALL FROM discards_of_latest)
QUALIFY row_number() OVER (PARTITION BY id ORDER BY reason) = 1

-- name: discarded_by_table
SELECT reason, table_name, count(*) FROM discarded GROUP BY ALL ORDER BY ALL
