{{ config(materialized='ephemeral') }}
-- Made from pipelines/autopilothq/models by `make docs`: change it there.
{% set block = 'email_events' %}
{% set seven = ['email_bounced', 'email_delivered', 'email_clicked', 'email_marked_as_spam', 'email_opened', 'email_unsubscribed', 'email_replied'] %}
{% set types = {'email_bounced': 'track', 'email_delivered': 'track', 'email_clicked': 'track', 'email_marked_as_spam': 'track', 'email_opened': 'track', 'email_unsubscribed': 'track', 'email_replied': 'track'} %}
{% for table, type in types.items() %}
{% set event = "'" ~ table ~ "'" if table in seven else 'sent_event' %}
SELECT
  rows_of.*,
  {{ event }} AS event,
  '{{ table }}' AS of_table,
{%- if target.type in ['redshift'] %}
  '{{ type }}' AS "type",
{%- else %}
  '{{ type }}' AS type,
{%- endif %}
  CASE
    WHEN LOWER(machine_text) IN ('true', 't', '1')
{%- if target.type in ['bigquery'] %}
    THEN CAST(1 AS BOOL)
{%- else %}
    THEN CAST(1 AS BOOLEAN)
{%- endif %}
    WHEN LOWER(machine_text) IN ('false', 'f', '0')
{%- if target.type in ['bigquery'] %}
    THEN CAST(0 AS BOOL)
{%- else %}
    THEN CAST(0 AS BOOLEAN)
{%- endif %}
  END AS machine,
{%- if target.type in ['redshift'] %}
  COALESCE("timestamp", received_at) AS occurred_at,
{%- else %}
  COALESCE(timestamp, received_at) AS occurred_at,
{%- endif %}
  COALESCE(context_traits_email, email) AS contact_email,
  CASE
{%- if target.type in ['snowflake', 'bigquery'] %}
    WHEN TRIM(context_traits_email, CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ') <> ''
{%- else %}
    WHEN TRIM(CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ' FROM context_traits_email) <> ''
{%- endif %}
    THEN LOWER(
{%- if target.type in ['snowflake', 'bigquery'] %}
      TRIM(context_traits_email, CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ')
{%- else %}
      TRIM(CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ' FROM context_traits_email)
{%- endif %}
    )
{%- if target.type in ['snowflake', 'bigquery'] %}
    WHEN TRIM(email, CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ') <> ''
    THEN LOWER(TRIM(email, CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' '))
{%- else %}
    WHEN TRIM(CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ' FROM email) <> ''
    THEN LOWER(TRIM(CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ' FROM email))
{%- endif %}
    WHEN user_id LIKE '%@%'
{%- if target.type in ['snowflake', 'bigquery'] %}
    THEN LOWER(TRIM(user_id, CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' '))
    WHEN TRIM(user_id, CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ') <> ''
    THEN TRIM(user_id, CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ')
{%- else %}
    THEN LOWER(TRIM(CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ' FROM user_id))
    WHEN TRIM(CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ' FROM user_id) <> ''
    THEN TRIM(CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ' FROM user_id)
{%- endif %}
    WHEN anonymous_id LIKE '%@%'
{%- if target.type in ['snowflake', 'bigquery'] %}
    THEN LOWER(TRIM(anonymous_id, CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' '))
    WHEN TRIM(anonymous_id, CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ') <> ''
    THEN TRIM(anonymous_id, CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ')
{%- else %}
    THEN LOWER(TRIM(CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ' FROM anonymous_id))
    WHEN TRIM(CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ' FROM anonymous_id) <> ''
    THEN TRIM(CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ' FROM anonymous_id)
{%- endif %}
  END AS person
FROM (
  {{ autopilothq_rows(table, block) }}
) AS rows_of
{{ 'UNION ALL' if not loop.last }}
{% endfor %}
