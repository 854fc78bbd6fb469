-- The names of emails and of their journeys; an email's last event may be older than the last name of its journey.
SELECT email.email_id, email.email_name, email.email_subject, email.campaign_id, journey.campaign_name
FROM email_overview_names AS email
LEFT JOIN (SELECT campaign_id, campaign_name FROM journey_overview_names WHERE place = 1) AS journey
    ON journey.campaign_id = email.campaign_id
WHERE email.place = 1
