-- Made from pipelines/autopilothq/models by `make docs`: change it there.
WITH spellings AS (
  SELECT
    campaign_id,
    campaign_name,
    MAX(occurred_at) AS last_at
  FROM {{ ref('email_events') }} AS email_events
  WHERE
    NOT campaign_id IS NULL
  GROUP BY
    campaign_id,
    campaign_name
), names AS (
  SELECT
    campaign_id,
    campaign_name,
    ROW_NUMBER() OVER (
      PARTITION BY campaign_id
      ORDER BY CASE
{%- if target.type in ['snowflake', 'bigquery'] %}
        WHEN TRIM(campaign_name, CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ') <> ''
{%- else %}
        WHEN TRIM(CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ' FROM campaign_name) <> ''
{%- endif %}
        THEN 0
        ELSE 1
{%- if target.type in ['bigquery', 'databricks'] %}
      END NULLS LAST, CASE WHEN last_at IS NULL THEN 1 ELSE 0 END NULLS LAST, last_at DESC, campaign_name NULLS LAST
{%- else %}
      END, CASE WHEN last_at IS NULL THEN 1 ELSE 0 END, last_at DESC NULLS LAST, campaign_name
{%- endif %}
    ) AS place
  FROM spellings
), by_person AS (
  SELECT
    campaign_id,
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
  WHERE
    NOT campaign_id IS NULL
  GROUP BY
    campaign_id,
    person
), totals AS (
  SELECT
    campaign_id AS id,
    MIN(first_delivered_at) AS first_delivered_at,
    MAX(last_delivered_at) AS last_delivered_at,
{%- if target.type in ['bigquery'] %}
    CAST(SUM(deliveries) AS INT64) AS delivered,
{%- else %}
    CAST(SUM(deliveries) AS BIGINT) AS delivered,
{%- endif %}
    COUNT(CASE WHEN deliveries > 0 THEN person END) AS people,
    COUNT(CASE WHEN deliveries + bounces > 0 THEN person END) AS attempted,
    COUNT(CASE WHEN deliveries > 0 AND opens > 0 THEN person END) AS opened,
    COUNT(CASE WHEN deliveries > 0 AND opens > COALESCE(machine_opens, 0) THEN person END) AS human_opened,
    COUNT(CASE WHEN deliveries > 0 AND clicks > 0 THEN person END) AS clicked,
    COUNT(CASE WHEN deliveries > 0 AND replies > 0 THEN person END) AS replied,
    COUNT(CASE WHEN bounces > 0 THEN person END) AS bounced,
    COUNT(CASE WHEN deliveries > 0 AND complaints > 0 THEN person END) AS complained,
    COUNT(CASE WHEN deliveries > 0 AND unsubscribes > 0 THEN person END) AS unsubscribed,
    COUNT(
      CASE
        WHEN deliveries = 0 AND opens + clicks + replies + complaints + unsubscribes > 0
        THEN person
      END
    ) AS undelivered,
{%- if target.type in ['bigquery'] %}
    CAST(SUM(opens) AS INT64) AS opens,
    CAST(SUM(machine_opens) AS INT64) AS machine_opens,
    CAST(SUM(clicks) AS INT64) AS clicks,
    CAST(SUM(replies) AS INT64) AS replies,
    CAST(SUM(bounces) AS INT64) AS bounces,
    CAST(SUM(complaints) AS INT64) AS complaints,
    CAST(SUM(unsubscribes) AS INT64) AS unsubscribes
{%- else %}
    CAST(SUM(opens) AS BIGINT) AS opens,
    CAST(SUM(machine_opens) AS BIGINT) AS machine_opens,
    CAST(SUM(clicks) AS BIGINT) AS clicks,
    CAST(SUM(replies) AS BIGINT) AS replies,
    CAST(SUM(bounces) AS BIGINT) AS bounces,
    CAST(SUM(complaints) AS BIGINT) AS complaints,
    CAST(SUM(unsubscribes) AS BIGINT) AS unsubscribes
{%- endif %}
  FROM by_person
  GROUP BY
    campaign_id
), emails AS (
  SELECT
    campaign_id AS of_id,
    COUNT(DISTINCT email_id) AS emails
  FROM {{ ref('email_events') }} AS email_events
  WHERE
    NOT campaign_id IS NULL
  GROUP BY
    campaign_id
)
SELECT
  campaign_id,
  campaign_name,
  emails,
  first_delivered_at,
  last_delivered_at,
  delivered,
  people,
  attempted,
  opened,
  human_opened,
  clicked,
  replied,
  bounced,
  complained,
  unsubscribed,
  undelivered,
  opens,
  machine_opens,
  clicks,
  replies,
  bounces,
  complaints,
  unsubscribes,
{%- if target.type in ['snowflake', 'databricks'] %}
  CAST(opened AS DOUBLE) / NULLIF(people, 0) AS open_rate,
  CAST(human_opened AS DOUBLE) / NULLIF(people, 0) AS human_open_rate,
  CAST(clicked AS DOUBLE) / NULLIF(people, 0) AS click_rate,
  CAST(clicked AS DOUBLE) / NULLIF(opened, 0) AS click_to_open_rate,
  CAST(replied AS DOUBLE) / NULLIF(people, 0) AS reply_rate,
  CAST(bounced AS DOUBLE) / NULLIF(people, 0) AS bounce_rate,
  CAST(bounced AS DOUBLE) / NULLIF(attempted, 0) AS bounce_rate_of_attempted,
  CAST(complained AS DOUBLE) / NULLIF(people, 0) AS complaint_rate,
  CAST(unsubscribed AS DOUBLE) / NULLIF(people, 0) AS unsubscribe_rate
{%- elif target.type in ['bigquery'] %}
  CAST(opened AS FLOAT64) / NULLIF(people, 0) AS open_rate,
  CAST(human_opened AS FLOAT64) / NULLIF(people, 0) AS human_open_rate,
  CAST(clicked AS FLOAT64) / NULLIF(people, 0) AS click_rate,
  CAST(clicked AS FLOAT64) / NULLIF(opened, 0) AS click_to_open_rate,
  CAST(replied AS FLOAT64) / NULLIF(people, 0) AS reply_rate,
  CAST(bounced AS FLOAT64) / NULLIF(people, 0) AS bounce_rate,
  CAST(bounced AS FLOAT64) / NULLIF(attempted, 0) AS bounce_rate_of_attempted,
  CAST(complained AS FLOAT64) / NULLIF(people, 0) AS complaint_rate,
  CAST(unsubscribed AS FLOAT64) / NULLIF(people, 0) AS unsubscribe_rate
{%- else %}
  CAST(opened AS DOUBLE PRECISION) / NULLIF(people, 0) AS open_rate,
  CAST(human_opened AS DOUBLE PRECISION) / NULLIF(people, 0) AS human_open_rate,
  CAST(clicked AS DOUBLE PRECISION) / NULLIF(people, 0) AS click_rate,
  CAST(clicked AS DOUBLE PRECISION) / NULLIF(opened, 0) AS click_to_open_rate,
  CAST(replied AS DOUBLE PRECISION) / NULLIF(people, 0) AS reply_rate,
  CAST(bounced AS DOUBLE PRECISION) / NULLIF(people, 0) AS bounce_rate,
  CAST(bounced AS DOUBLE PRECISION) / NULLIF(attempted, 0) AS bounce_rate_of_attempted,
  CAST(complained AS DOUBLE PRECISION) / NULLIF(people, 0) AS complaint_rate,
  CAST(unsubscribed AS DOUBLE PRECISION) / NULLIF(people, 0) AS unsubscribe_rate
{%- endif %}
FROM names
JOIN totals
  ON totals.id = names.campaign_id
JOIN emails
  ON emails.of_id = names.campaign_id
WHERE
  place = 1
