-- How often each event occurred on each day.
SELECT day, {counts} FROM (SELECT *, {day} AS day FROM email_events) AS with_day
WHERE day IS NOT NULL GROUP BY day ORDER BY day
