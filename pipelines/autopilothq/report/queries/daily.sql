-- How often each event occurred on each day (since 1970, UTC).
SELECT day, {counts}
FROM (SELECT *, CAST(floor(epoch(occurred_at) / 86400) AS BIGINT) AS day FROM email_events) AS with_day
WHERE day IS NOT NULL GROUP BY day
