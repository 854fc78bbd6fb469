-- Turns lines of regular shapes into cells.

-- name: cells
-- A row for each of `lines` that has one of the `known_shapes`. Values and expressions that are used several times have
-- names, so that the engine plans and evaluates each once; the name of a value is its JSON pointer.
WITH shaped AS (
    -- A CASE, because the engine may compute shapes before it evaluates a WHERE, and raises an error for broken JSON.
    SELECT seq, text, CASE WHEN {readable} THEN to_json(json_keys(text, {pointers}))::VARCHAR END AS shape FROM lines
), parsed AS (
    SELECT seq, text, has_nulls, from_json(text, {structure}) AS m FROM shaped JOIN known_shapes USING (shape)
), named AS (
    SELECT seq, text, has_nulls, {named_values} FROM parsed
), typed AS (
    SELECT *, "/type" AS kind,
        -- A message without an id gets a digest of its line, without the line ending (`message.digest`).
        coalesce(blank_as_null("/messageId"), sha256(rtrim(text, chr(13) || chr(10)))) AS id,
        blank_as_null("/userId") AS user_id, blank_as_null("/anonymousId") AS known_anonymous_id,
        "/type" IN ('track', 'page', 'screen') AS has_properties, "/type" IN ('identify', 'group') AS has_traits,
        "/receivedAt" AS received_at, "/sentAt" AS sent_at, "/originalTimestamp" AS original_timestamp,
        "/timestamp" AS "timestamp"
    FROM named
), timed AS ({timed}), identified AS (
    SELECT *,
        -- Only the context's email is used. If it is missing or does not look like an email, the line is irregular.
        coalesce(known_anonymous_id, CASE
            WHEN user_id IS NULL AND contains("/context/traits/email", '@')
                AND NOT starts_with("/context/traits/email", '[') THEN "/context/traits/email" END
        ) AS anonymous_id,
        CASE WHEN has_nulls THEN coalesce({objects}, false) ELSE false END AS has_other
    FROM timed
)
SELECT seq, hash(text) AS tie, {select},
    has_other OR (user_id IS NULL AND anonymous_id IS NULL) OR {irregular} AS irregular
FROM identified
