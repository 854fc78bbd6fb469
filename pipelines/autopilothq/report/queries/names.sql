-- The names of emails and of their journeys.
SELECT email_id, email_name, email_subject, campaign_id, campaign_name FROM email_overview_names WHERE place = 1
