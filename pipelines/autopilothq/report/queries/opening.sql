-- First opens by the minutes between them and the first delivery; all after a week are one row, all before it too.
SELECT CASE WHEN seconds < 0 THEN -1 WHEN seconds >= 604800 THEN 10080 ELSE CAST(floor(seconds / 60) AS BIGINT) END
    AS minutes, count(*) AS opens
FROM (
    SELECT epoch(first_opened_at) - epoch(first_delivered_at) AS seconds FROM person_email
    WHERE deliveries > 0 AND opens > 0 AND {rated} = 1
) AS delays
GROUP BY CASE WHEN seconds < 0 THEN -1 WHEN seconds >= 604800 THEN 10080 ELSE CAST(floor(seconds / 60) AS BIGINT) END
