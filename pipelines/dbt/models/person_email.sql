-- Made from pipelines/autopilothq/models by `make docs`: change it there.
SELECT
  person,
  email_id,
  MIN(CASE WHEN event = 'email_opened' THEN occurred_at END) AS first_opened_at,
  MIN(CASE WHEN event = 'email_clicked' THEN occurred_at END) AS first_clicked_at,
  MIN(CASE WHEN event = 'email_replied' THEN occurred_at END) AS first_replied_at,
  MIN(CASE WHEN event = 'email_bounced' THEN occurred_at END) AS first_bounced_at,
  MIN(CASE WHEN event = 'email_marked_as_spam' THEN occurred_at END) AS first_complained_at,
  MIN(CASE WHEN event = 'email_unsubscribed' THEN occurred_at END) AS first_unsubscribed_at,
  MIN(CASE WHEN event = 'email_delivered' THEN occurred_at END) AS first_delivered_at,
  MAX(CASE WHEN event = 'email_delivered' THEN occurred_at END) AS last_delivered_at,
  COUNT(CASE WHEN event = 'email_delivered' THEN 1 END) AS deliveries,
  COUNT(CASE WHEN event = 'email_opened' THEN 1 END) AS opens,
  SUM(
    CASE
      WHEN event = 'email_opened'
      THEN CASE WHEN machine THEN 1 WHEN NOT machine THEN 0 END
    END
  ) AS machine_opens,
  COUNT(CASE WHEN event = 'email_clicked' THEN 1 END) AS clicks,
  COUNT(CASE WHEN event = 'email_replied' THEN 1 END) AS replies,
  COUNT(CASE WHEN event = 'email_bounced' THEN 1 END) AS bounces,
  COUNT(CASE WHEN event = 'email_marked_as_spam' THEN 1 END) AS complaints,
  COUNT(CASE WHEN event = 'email_unsubscribed' THEN 1 END) AS unsubscribes
FROM {{ ref('email_events') }} AS email_events
WHERE
  NOT person IS NULL AND NOT email_id IS NULL
GROUP BY
  person,
  email_id
