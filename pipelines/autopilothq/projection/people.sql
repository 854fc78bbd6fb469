-- The people whose events are requested from an API.

-- name: tables
CREATE TABLE people (person VARCHAR, active_at TIMESTAMPTZ, details VARCHAR);
-- The people who were requested in earlier runs, and in this run.
CREATE TABLE asked (person VARCHAR, watermark TIMESTAMPTZ, asked_at TIMESTAMPTZ);
CREATE TABLE answered (person VARCHAR, watermark TIMESTAMPTZ, asked_at TIMESTAMPTZ)

-- name: asked
-- `stored` is the destination's `_profiles`, `complete` the ids of the loads that count.
INSERT INTO asked SELECT person, max(watermark), max(asked_at) FROM stored SEMI JOIN complete USING (load_id)
WHERE space = $space AND scope = $scope AND ($latest::TIMESTAMPTZ IS NULL OR asked_at <= $latest) GROUP BY person

-- name: retry
-- The people whose last answer could not be read.
INSERT INTO people SELECT person, NULL, NULL FROM asked WHERE watermark IS DISTINCT FROM asked_at

-- name: due
-- The people who are due, numbered: first those who were never requested, then the others, each group shuffled. Without
-- a lookback, everybody is due who was not requested since `begun`.
CREATE TABLE due AS
SELECT row_number() OVER (ORDER BY asked_at IS NOT NULL, md5(person)) AS number, person, watermark, details
FROM (SELECT person, max(active_at) AS active_at, max(details) AS details FROM people GROUP BY person)
LEFT JOIN asked USING (person)
WHERE (asked_at IS NULL OR asked_at < $begun) AND (
    watermark IS NULL OR $lookback::BIGINT IS NULL OR active_at > watermark - to_microseconds($lookback::BIGINT)
    OR ($retry AND watermark IS DISTINCT FROM asked_at))
