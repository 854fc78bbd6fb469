-- How many events there are, of which times, and when the last of them was received.
SELECT count(*) AS events, min(occurred_at) AS first, max(occurred_at) AS last, max(received_at) AS received
FROM email_events
