{{ config(materialized='incremental', unique_key=['type', 'id']) }}
-- Made from pipelines/autopilothq/models by `make docs`: change it there.
SELECT * FROM (
SELECT
  person,
  occurred_at,
{%- if target.type in ['redshift'] %}
  "type",
{%- else %}
  type,
{%- endif %}
  messages.event,
  event_text,
  id,
  received_at,
  uuid_ts AS loaded_at,
  user_id,
  anonymous_id,
  contact_email AS email,
  context_traits_contact_id AS contact_id,
  campaign_id,
  campaign_name,
  email_id,
  email_name,
  email_subject,
  link_url,
  name,
  group_id
FROM {{ ref('messages') }} AS messages
LEFT JOIN (
  SELECT
    event
  FROM {{ ref('email_events') }} AS email_events
  GROUP BY
    event
) AS detailed
  ON detailed.event = messages.event
WHERE
  NOT person IS NULL AND (
    of_table <> 'tracks' OR detailed.event IS NULL
  )
) AS all_rows
{% if is_incremental() %}WHERE loaded_at >= (SELECT max(loaded_at) FROM {{ this }}){% endif %}
