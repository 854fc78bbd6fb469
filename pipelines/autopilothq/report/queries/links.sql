-- The links that most people clicked, of those who got their email early enough to be rated.
WITH got AS (
    SELECT email_id, person, {rated} AS rated FROM person_email WHERE deliveries > 0 AND clicks > 0
)
SELECT clicked.email_id, link_url, count(*) AS people, CAST(sum(clicks) AS BIGINT) AS clicks
FROM link_overview_clicked AS clicked JOIN got ON got.email_id = clicked.email_id AND got.person = clicked.person
WHERE rated = 1
GROUP BY clicked.email_id, link_url
ORDER BY people DESC, clicks DESC, link_url LIMIT 12
