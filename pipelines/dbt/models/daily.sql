-- Made from pipelines/autopilothq/models by `make docs`: change it there.
WITH by_person AS (
  SELECT
{%- if target.type in ['snowflake'] %}
    CAST(CONVERT_TIMEZONE('UTC', occurred_at) AS DATE) AS day,
{%- elif target.type in ['bigquery'] %}
    CAST(TIMESTAMP(DATETIME(occurred_at, 'UTC')) AS DATE) AS day,
{%- elif target.type in ['databricks'] %}
    CAST(FROM_UTC_TIMESTAMP(occurred_at, 'UTC') AS DATE) AS day,
{%- else %}
    CAST(occurred_at AT TIME ZONE 'UTC' AS DATE) AS day,
{%- endif %}
    person,
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
  GROUP BY
{%- if target.type in ['snowflake'] %}
    CAST(CONVERT_TIMEZONE('UTC', occurred_at) AS DATE),
{%- elif target.type in ['bigquery'] %}
    CAST(TIMESTAMP(DATETIME(occurred_at, 'UTC')) AS DATE),
{%- elif target.type in ['databricks'] %}
    CAST(FROM_UTC_TIMESTAMP(occurred_at, 'UTC') AS DATE),
{%- else %}
    CAST(occurred_at AT TIME ZONE 'UTC' AS DATE),
{%- endif %}
    person
)
SELECT
  day,
{%- if target.type in ['bigquery'] %}
  CAST(SUM(deliveries) AS INT64) AS delivered,
  CAST(SUM(opens) AS INT64) AS opens,
  CAST(SUM(machine_opens) AS INT64) AS machine_opens,
  CAST(SUM(clicks) AS INT64) AS clicks,
  CAST(SUM(replies) AS INT64) AS replies,
  CAST(SUM(bounces) AS INT64) AS bounces,
  CAST(SUM(complaints) AS INT64) AS complaints,
  CAST(SUM(unsubscribes) AS INT64) AS unsubscribes,
{%- else %}
  CAST(SUM(deliveries) AS BIGINT) AS delivered,
  CAST(SUM(opens) AS BIGINT) AS opens,
  CAST(SUM(machine_opens) AS BIGINT) AS machine_opens,
  CAST(SUM(clicks) AS BIGINT) AS clicks,
  CAST(SUM(replies) AS BIGINT) AS replies,
  CAST(SUM(bounces) AS BIGINT) AS bounces,
  CAST(SUM(complaints) AS BIGINT) AS complaints,
  CAST(SUM(unsubscribes) AS BIGINT) AS unsubscribes,
{%- endif %}
  COUNT(CASE WHEN deliveries > 0 THEN person END) AS people,
  COUNT(CASE WHEN opens > 0 THEN person END) AS openers,
  COUNT(CASE WHEN clicks > 0 THEN person END) AS clickers,
  COUNT(CASE WHEN replies > 0 THEN person END) AS repliers,
  COUNT(CASE WHEN bounces > 0 THEN person END) AS bounced,
  COUNT(CASE WHEN complaints > 0 THEN person END) AS complainers,
  COUNT(CASE WHEN unsubscribes > 0 THEN person END) AS unsubscribers
FROM by_person
GROUP BY
  day
