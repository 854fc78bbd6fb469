-- One row per email and link that was clicked. The rate is of the people to whom the email was delivered.
WITH clicked AS (
    SELECT email_id, link_id, link_url, person,
        count(*) AS clicks, min(occurred_at) AS first_at, max(occurred_at) AS last_at
    FROM email_events WHERE event = 'email_clicked' AND email_id IS NOT NULL
    GROUP BY email_id, link_id, link_url, person
)
SELECT clicked.email_id, min(email_overview.email_name) AS email_name,
    min(email_overview.campaign_id) AS campaign_id, min(email_overview.campaign_name) AS campaign_name,
    link_id, link_url,
    CAST(sum(clicked.clicks) AS BIGINT) AS clicks,
    count(clicked.person) AS clickers,
    count(CASE WHEN person_email.deliveries > 0 THEN clicked.person END) AS clicked,
    min(email_overview.people) AS people,
    CAST(count(CASE WHEN person_email.deliveries > 0 THEN clicked.person END) AS DOUBLE)
        / nullif(min(email_overview.people), 0) AS click_rate,
    min(clicked.first_at) AS first_clicked_at,
    max(clicked.last_at) AS last_clicked_at
FROM clicked
JOIN email_overview ON email_overview.email_id = clicked.email_id
LEFT JOIN person_email ON person_email.email_id = clicked.email_id AND person_email.person = clicked.person
GROUP BY clicked.email_id, link_id, link_url
