-- All journeys, each with every name that it has had.
SELECT DISTINCT campaign_id, campaign_name FROM email_events WHERE campaign_id IS NOT NULL
