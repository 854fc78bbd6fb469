-- How often each of the seven events occurred; an aggregate over rows of email_events.
min(CASE WHEN event = 'email_delivered' THEN occurred_at END) AS first_delivered_at,
max(CASE WHEN event = 'email_delivered' THEN occurred_at END) AS last_delivered_at,
count(CASE WHEN event = 'email_delivered' THEN 1 END) AS deliveries,
count(CASE WHEN event = 'email_opened' THEN 1 END) AS opens,
sum(CASE WHEN event = 'email_opened' THEN CASE WHEN machine THEN 1 WHEN NOT machine THEN 0 END END) AS machine_opens,
count(CASE WHEN event = 'email_clicked' THEN 1 END) AS clicks,
count(CASE WHEN event = 'email_replied' THEN 1 END) AS replies,
count(CASE WHEN event = 'email_bounced' THEN 1 END) AS bounces,
count(CASE WHEN event = 'email_marked_as_spam' THEN 1 END) AS complaints,
count(CASE WHEN event = 'email_unsubscribed' THEN 1 END) AS unsubscribes
