{{ config(materialized='incremental', unique_key=['type', 'id']) }}
-- Made from pipelines/autopilothq/models by `make docs`: change it there.
SELECT * FROM (
{% if target.type in ['redshift'] %}
SELECT
  person,
  occurred_at,
  "type",
  event,
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
WHERE
  NOT person IS NULL
  AND (
    of_table <> 'tracks'
    OR event IS NULL
    OR NOT event IN (
      SELECT
        event
      FROM {{ ref('email_events') }} AS email_events
    )
  )
{% else %}
SELECT
  person,
  occurred_at,
  type,
  event,
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
WHERE
  NOT person IS NULL
  AND (
    of_table <> 'tracks'
    OR event IS NULL
    OR NOT event IN (
      SELECT
        event
      FROM {{ ref('email_events') }} AS email_events
    )
  )
{% endif %}
) AS all_rows
{% if is_incremental() %}WHERE loaded_at >= (SELECT max(loaded_at) FROM {{ this }}){% endif %}
