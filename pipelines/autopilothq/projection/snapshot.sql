-- The current records of one table; `k:0`, `k:1`, … are the parts of a record's key, `x:` precedes the name of a cell.

-- name: tables
CREATE TABLE discards (seq BIGINT, "column" VARCHAR, value VARCHAR, reason VARCHAR);
-- The rows of the destination whose records the scan did not find.
CREATE VIEW deleted AS SELECT NULL::TIMESTAMPTZ AS uuid_ts LIMIT 0

-- name: records
-- All added records, and the last one of each key.
CREATE VIEW records AS {source};
CREATE TABLE last AS SELECT max(seq) AS seq FROM records GROUP BY {keys}

-- name: current
-- The last record of each key.
CREATE VIEW current AS FROM records{last}

-- name: older
-- The records whose stored rows were received after the scan began and are newer.
INSERT INTO older SELECT c.seq FROM stored s JOIN current c ON {same}
WHERE s.received_at > {received_at} AND s.updated_at > as_moment({updated_at})

-- name: newest
CREATE OR REPLACE VIEW current AS FROM records SEMI JOIN last USING (seq) ANTI JOIN older USING (seq)

-- name: discard
INSERT INTO discards SELECT seq, $column_name, {cell}, $reason FROM current WHERE {misfit}

-- name: missing
-- The keys that the destination (`stored`) has from an earlier scan and this one did not find.
INSERT INTO missing SELECT {keys} FROM stored s ANTI JOIN current c ON {same}
WHERE s.deleted_at IS NULL AND s.received_at < {received_at}

-- name: deleted
SELECT * REPLACE ({loaded_at} AS uuid_ts, {received_at} AS deleted_at) FROM stored SEMI JOIN missing USING ({keys})

-- name: discarded
-- The rows of `_discards`.
CREATE OR REPLACE TABLE discarded AS
SELECT sha256(concat_ws(chr(10), table_name, row_id, column_name, value)) AS id, *
FROM (SELECT $table_name AS table_name, concat_ws(' ', {keys}) AS row_id, "column" AS column_name, value, reason,
    {received_at} AS received_at, {loaded_at} AS discarded_at FROM discards JOIN current USING (seq))
QUALIFY row_number() OVER (PARTITION BY id ORDER BY reason) = 1
