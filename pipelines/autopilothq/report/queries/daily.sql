-- What happened on each day.
SELECT day, delivered, opens, clicks, replies, bounces, complaints, unsubscribes FROM daily
WHERE day IS NOT NULL ORDER BY day
