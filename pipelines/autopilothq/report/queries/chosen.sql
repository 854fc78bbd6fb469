-- The names that journeys have had.
SELECT DISTINCT campaign_id, campaign_name FROM email_events WHERE campaign_id IS NOT NULL
