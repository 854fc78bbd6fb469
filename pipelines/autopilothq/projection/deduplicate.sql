-- Decides which messages are kept; docs/projection.md draws the tables.

-- name: parsed
-- All messages with the numbers of their tables. Values that only repeat another value of the message are null.
CREATE VIEW parsed AS
SELECT m.*{replaced}, coalesce(e.table_number, k.table_number) AS table_number, e.slug,
    CASE WHEN m.long_event IS NULL OR e.event_text IS NULL
        THEN e.event_text ELSE as_text(m.long_event) END AS event_text
FROM (SELECT * EXCLUDE (irregular) FROM {files} WHERE NOT irregular AND {only}) m
LEFT JOIN events e ON e.event = m.event LEFT JOIN kinds k ON k.kind = m.kind

-- name: messages
-- The messages that are not rejected.
CREATE OR REPLACE VIEW messages AS FROM parsed{but}

-- name: kept
-- The messages whose rows are made, once all duplicates are known.
CREATE VIEW kept AS FROM messages ANTI JOIN duplicates USING (seq)

-- name: candidates
-- Before that: the messages that may turn out to be stored.
CREATE VIEW candidates AS SELECT seq, id, table_number FROM messages ANTI JOIN duplicates USING (seq)

-- name: candidates_of_refused
-- Includes the messages of refused users (accounts): if one is stored already, it is a duplicate, not a reject.
CREATE OR REPLACE VIEW candidates AS SELECT seq, id, table_number FROM messages ANTI JOIN duplicates USING (seq)
UNION ALL SELECT seq, id, table_number FROM parsed SEMI JOIN (FROM refused WHERE row_id IS NOT NULL AND NOT again)
USING (seq)

-- name: refused_but_stored
CREATE OR REPLACE TEMP TABLE refused_but_stored AS
SELECT seq FROM refused SEMI JOIN stored_in USING (seq) SEMI JOIN (FROM rejects WHERE reason = 'unreadable') USING (seq)

-- name: rejected_still
FROM rejects ANTI JOIN refused_but_stored USING (seq)

-- name: admit
DELETE FROM refused WHERE seq IN (FROM refused_but_stored)

-- name: repeated_ids
CREATE OR REPLACE TEMP TABLE repeated_ids AS
SELECT hash(id) AS hash FROM messages GROUP BY 1 HAVING count(*) > 1

-- name: duplicates_within
-- Keeps the earliest of the messages with one id; `tie` makes the choice independent of the order of the lines.
INSERT INTO duplicates SELECT seq FROM (
    SELECT seq, row_number() OVER (PARTITION BY id ORDER BY received_at NULLS LAST, tie, seq) AS rank
    FROM messages m SEMI JOIN repeated_ids r ON r.hash = hash(m.id))
WHERE rank > 1

-- name: match_stored
-- `stored` are the ids of one table of the destination.
INSERT INTO stored_in SELECT m.seq, {table_number}, {track} FROM stored s JOIN candidates m ON m.id = s.id

-- name: events_to_check
-- The events of those messages of this load that are in `tracks`: a killed load may not have reached the event tables.
SELECT DISTINCT m.slug FROM stored_in i JOIN messages m USING (seq)
WHERE i.table_number = 0 AND m.table_number >= $first_event_table AND i.event = m.slug

-- name: match_event_table
-- `stored` are the ids in the event's table.
INSERT INTO in_event_table
SELECT i.seq FROM stored s JOIN (FROM stored_in WHERE table_number = 0 AND event = $event) i ON i.id = s.id

-- name: forget_half_stored
-- A track that is not in its event's table does not count as stored.
DELETE FROM stored_in
WHERE table_number = 0 AND event = $event AND event_table = $table_number AND seq NOT IN (FROM in_event_table)

-- name: duplicates_stored
INSERT INTO duplicates SELECT DISTINCT seq FROM stored_in

-- name: stored_with_discards
CREATE OR REPLACE TEMP TABLE stored_with_discards AS
SELECT DISTINCT m.seq, m.id, m.received_at::TIMESTAMPTZ AS received_at, i.table_number
FROM stored_in i JOIN messages m USING (seq) WHERE i.seq IN (SELECT seq FROM discards)

-- name: complete_loads
-- `stored` is the destination's `_audit`.
INSERT INTO complete_loads SELECT loaded_at FROM stored WHERE {is_complete}

-- name: discarded_again
-- `stored` are rows of the table that holds the messages.
INSERT INTO discarded_again SELECT d.seq FROM stored s JOIN stored_with_discards d
ON d.id = s.id AND d.received_at IS NOT DISTINCT FROM s.received_at::TIMESTAMPTZ
WHERE s.uuid_ts NOT IN (FROM complete_loads)

-- name: refuse
-- `refused_messages` (`id`, `error`) and `refused_rows` (`table_name`, `id`, `error`) are what the destination refused.
INSERT INTO refused
SELECT seq, m.id, coalesce(g.error, r.error), m.table_name, m.row_id, m.row_id IS NOT NULL AND r.id IS NULL
FROM (SELECT *, CASE kind {table_name} END AS table_name, CASE kind {row_id} END AS row_id FROM messages) m
LEFT JOIN refused_messages g ON g.id = m.id
LEFT JOIN refused_rows r ON r.id = m.row_id AND r.table_name = m.table_name
WHERE g.id IS NOT NULL OR r.id IS NOT NULL

-- name: reject_refused
-- `raw_lines` are the original lines.
SELECT seq, coalesce(l.id, sha256(r.id)) AS id, 'unreadable' AS reason, error AS message, coalesce(raw, '') AS raw
FROM refused r LEFT JOIN raw_lines l USING (seq)

-- name: reject_suppressed
-- Only a hash is kept. It stays the same if the message comes again, even from another scan.
SELECT seq, sha256(concat('suppressed', id)) AS id, 'suppressed' AS reason, $message AS message, '' AS raw
FROM suppressed

-- name: suppress_rejects
SELECT seq, id, CASE WHEN mentions THEN 'suppressed' ELSE reason END AS reason,
    CASE WHEN mentions THEN $message ELSE message END AS message, CASE WHEN mentions THEN '' ELSE raw END AS raw
FROM (SELECT *, seq IN (SELECT unnest($seqs)) AS mentions FROM rejects)

-- name: drop_event_tables
UPDATE events SET table_number = 0 WHERE table_number IN (SELECT unnest($table_numbers))
