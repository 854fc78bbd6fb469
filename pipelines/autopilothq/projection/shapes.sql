-- Turns lines of regular shapes into cells.

-- name: cells
-- A row for each of `lines` that has one of the `known_shapes`. Expressions that are used several times have names, so
-- that the engine plans and evaluates each once. Timestamps in unusual notations, which few lines have, are parsed in
-- one list for the same reason.
WITH shaped AS (
    -- A CASE, because the engine may compute shapes before it evaluates a WHERE, and raises an error for broken JSON.
    SELECT seq, text, CASE WHEN {readable} THEN to_json(json_keys(text, {pointers}))::VARCHAR END AS shape FROM lines
), parsed AS (
    SELECT seq, text, has_nulls, from_json(text, {structure}) AS m FROM shaped JOIN known_shapes USING (shape)
), named AS (
    SELECT seq, text, has_nulls, m, m."type" AS kind, blank_as_null(m."messageId") AS id,
        blank_as_null(m."userId") AS user_id, blank_as_null(m."anonymousId") AS known_anonymous_id,
        m."type" IN ('track', 'page', 'screen') AS has_properties, m."type" IN ('identify', 'group') AS has_traits,
        usual_clock(m."receivedAt"::VARCHAR) AS received_at_usual, usual_clock(m."sentAt"::VARCHAR) AS sent_at_usual,
        usual_clock(m."originalTimestamp"::VARCHAR) AS original_timestamp_usual,
        usual_clock(m."timestamp"::VARCHAR) AS timestamp_usual
    FROM parsed
), timed AS (
    SELECT *, CASE
        WHEN (m."receivedAt" IS NOT NULL AND received_at_usual IS NULL)
            OR (m."sentAt" IS NOT NULL AND sent_at_usual IS NULL)
            OR (m."originalTimestamp" IS NOT NULL AND original_timestamp_usual IS NULL)
            OR (m."timestamp" IS NOT NULL AND timestamp_usual IS NULL)
        THEN unusual_clocks(
            [m."receivedAt"::VARCHAR, m."sentAt"::VARCHAR, m."originalTimestamp"::VARCHAR, m."timestamp"::VARCHAR])
        END AS unusual,
        CASE WHEN has_nulls THEN coalesce({objects}, false) ELSE false END AS has_other
    FROM named
)
SELECT {select} FROM timed
