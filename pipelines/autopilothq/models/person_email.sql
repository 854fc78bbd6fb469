-- One row per person and email of any of the seven events.
SELECT person, email_id,
    min(CASE WHEN event = 'email_opened' THEN occurred_at END) AS first_opened_at,
    min(CASE WHEN event = 'email_clicked' THEN occurred_at END) AS first_clicked_at,
    min(CASE WHEN event = 'email_replied' THEN occurred_at END) AS first_replied_at,
    min(CASE WHEN event = 'email_bounced' THEN occurred_at END) AS first_bounced_at,
    min(CASE WHEN event = 'email_marked_as_spam' THEN occurred_at END) AS first_complained_at,
    min(CASE WHEN event = 'email_unsubscribed' THEN occurred_at END) AS first_unsubscribed_at,
    {counts}
FROM email_events
WHERE person IS NOT NULL AND email_id IS NOT NULL
GROUP BY person, email_id
