-- The number of events, the first and the last of their times, and the time of the last receipt.
SELECT count(*) AS events, min(occurred_at) AS first, max(occurred_at) AS last, max(received_at) AS received
FROM email_events
