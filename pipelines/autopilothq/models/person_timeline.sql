-- One row per message of a person, from all tables of messages. An event with details in one of the seven event tables
-- is taken from there, any other event from tracks.
SELECT person, occurred_at, type, messages.event, event_text, id, received_at, uuid_ts AS loaded_at, user_id,
    anonymous_id, contact_email AS email, context_traits_contact_id AS contact_id,
    campaign_id, campaign_name, email_id, email_name, email_subject, link_url, name, group_id
FROM messages
LEFT JOIN (SELECT event FROM email_events GROUP BY event) AS detailed ON detailed.event = messages.event
WHERE person IS NOT NULL AND (of_table <> 'tracks' OR detailed.event IS NULL)
