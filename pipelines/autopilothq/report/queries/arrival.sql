-- Events by the span from the event to its receipt: 0 is a receipt before the event, -1 one that is a day or more
-- before it, null is an unknown time.
SELECT CASE
        WHEN seconds <= -86400 THEN -1 WHEN seconds < 0 THEN 0 WHEN seconds < 60 THEN 1 WHEN seconds < 3600 THEN 2
        WHEN seconds < 86400 THEN 3 WHEN seconds < 604800 THEN 4 WHEN seconds >= 604800 THEN 5
    END AS span, count(*) AS events
FROM (SELECT epoch(received_at) - epoch(timestamp) AS seconds FROM email_events) AS delays
GROUP BY CASE
        WHEN seconds <= -86400 THEN -1 WHEN seconds < 0 THEN 0 WHEN seconds < 60 THEN 1 WHEN seconds < 3600 THEN 2
        WHEN seconds < 86400 THEN 3 WHEN seconds < 604800 THEN 4 WHEN seconds >= 604800 THEN 5
    END
