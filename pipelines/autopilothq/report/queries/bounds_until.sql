-- The same for mail that was sent before a time. Later events count if they are about such mail.
SELECT count(*) AS events, min(occurred_at) AS first, max(occurred_at) AS last, max(received_at) AS received
FROM email_events AS events
LEFT JOIN (
    SELECT DISTINCT person AS mailed, email_id AS mail FROM email_events
    WHERE event IN ('email_delivered', 'email_bounced')
) AS sent ON sent.mailed = events.person AND sent.mail = events.email_id
WHERE occurred_at < {until} OR sent.mail IS NOT NULL
