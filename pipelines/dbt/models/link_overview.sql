-- Made from pipelines/autopilothq/models by `make docs`: change it there.
WITH clicked AS (
  SELECT
    email_id,
    link_id,
    link_url,
    person,
    COUNT(*) AS clicks,
    MIN(occurred_at) AS first_at,
    MAX(occurred_at) AS last_at
  FROM {{ ref('email_events') }} AS email_events
  WHERE
    event = 'email_clicked' AND NOT email_id IS NULL
  GROUP BY
    email_id,
    link_id,
    link_url,
    person
)
SELECT
  clicked.email_id,
  MIN(email_overview.email_name) AS email_name,
  MIN(email_overview.campaign_id) AS campaign_id,
  MIN(email_overview.campaign_name) AS campaign_name,
  link_id,
  link_url,
{%- if target.type in ['bigquery'] %}
  CAST(SUM(clicked.clicks) AS INT64) AS clicks,
{%- else %}
  CAST(SUM(clicked.clicks) AS BIGINT) AS clicks,
{%- endif %}
  COUNT(clicked.person) AS clickers,
  COUNT(CASE WHEN person_email.deliveries > 0 THEN clicked.person END) AS clicked,
  MIN(email_overview.people) AS people,
{%- if target.type in ['snowflake', 'databricks'] %}
  CAST(COUNT(CASE WHEN person_email.deliveries > 0 THEN clicked.person END) AS DOUBLE) / NULLIF(MIN(email_overview.people), 0) AS click_rate,
{%- elif target.type in ['bigquery'] %}
  CAST(COUNT(CASE WHEN person_email.deliveries > 0 THEN clicked.person END) AS FLOAT64) / NULLIF(MIN(email_overview.people), 0) AS click_rate,
{%- else %}
  CAST(COUNT(CASE WHEN person_email.deliveries > 0 THEN clicked.person END) AS DOUBLE PRECISION) / NULLIF(MIN(email_overview.people), 0) AS click_rate,
{%- endif %}
  MIN(clicked.first_at) AS first_clicked_at,
  MAX(clicked.last_at) AS last_clicked_at
FROM clicked
JOIN {{ ref('email_overview') }} AS email_overview
  ON email_overview.email_id = clicked.email_id
LEFT JOIN {{ ref('person_email') }} AS person_email
  ON person_email.email_id = clicked.email_id AND person_email.person = clicked.person
GROUP BY
  clicked.email_id,
  link_id,
  link_url
