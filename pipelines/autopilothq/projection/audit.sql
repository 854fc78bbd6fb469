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
-- The number of kept messages of each file that earlier loads have counted already; `counted` has their tables.
SELECT counted.file, count(*) FROM kept JOIN counted ON counted.file = file_of(seq)
WHERE list_contains(names, CASE kind {tables} ELSE coalesce(slug, '') END) <> all_but GROUP BY 1

-- name: rejects_by_reason
SELECT reason, count(*) FROM rejects GROUP BY 1 ORDER BY 2 DESC, 1

-- name: reject_causes
SELECT cause, count(*)
FROM rejects JOIN (SELECT DISTINCT unnest($causes::VARCHAR[]) AS cause) ON suffix(message, '(' || cause || ')')
WHERE reason = 'not_json' GROUP BY 1 ORDER BY 2 DESC, 1

-- name: all_rejected
-- The rows of `_rejects`; `files` are the files of the load. Each line of each file has a row of its own.
SELECT nextval('row_numbers') AS number, file, line, reason, message, raw, $loaded_at::TIMESTAMPTZ AS rejected_at, seq,
    CASE WHEN reason = 'suppressed' THEN id ELSE sha256(concat_ws(chr(10), file, line, id)) END AS id
FROM (SELECT *, line_of(seq) AS line FROM rejects) r JOIN files ON files.number = file_of(r.seq)

-- name: rejected
-- One row per id. Long texts take no part in the sort.
CREATE OR REPLACE TABLE rejected_once AS
SELECT number FROM all_rejected QUALIFY row_number() OVER (PARTITION BY id ORDER BY seq, reason) = 1;
CREATE OR REPLACE VIEW rejected AS FROM all_rejected SEMI JOIN rejected_once USING (number)

-- name: all_discarded
-- The rows of `_discards`.
SELECT nextval('row_numbers') AS number, sha256(concat_ws(chr(10), table_name, row_id, column_name, value)) AS id, *,
    sha256(value) AS digest, $loaded_at::TIMESTAMPTZ AS discarded_at
FROM (
    SELECT seq, d.table_name AS of_table, coalesce(d.table_name, n.name) AS table_name, m.id AS row_id, column_name,
        value, reason, m.received_at::TIMESTAMPTZ AS received_at
    FROM discards d JOIN messages m USING (seq) JOIN table_names n USING (table_number)
    WHERE seq NOT IN (FROM duplicates) OR seq IN (FROM discarded_again)
    UNION ALL BY NAME FROM discards_of_latest)

-- name: discarded
-- A value that neither `tracks` nor the event's table takes is reported for the event's table. Long texts take no part
-- in the sort.
CREATE OR REPLACE TABLE discarded_once AS
SELECT number FROM (
    SELECT number, id, reason FROM all_discarded
    QUALIFY seq IS NULL OR row_number() OVER (
        PARTITION BY seq, column_name, digest, reason ORDER BY table_name = 'tracks', of_table) = 1)
QUALIFY row_number() OVER (PARTITION BY id ORDER BY reason) = 1;
CREATE OR REPLACE VIEW discarded AS FROM all_discarded SEMI JOIN discarded_once USING (number)

-- name: nothing_discarded
CREATE OR REPLACE VIEW discarded AS FROM discards WHERE false

-- name: discarded_by_table
SELECT reason, table_name, count(*) FROM discarded GROUP BY ALL ORDER BY ALL
