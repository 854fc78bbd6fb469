-- People x emails, with the models' measures: by email, by hour of delivery (since 1970, UTC), by minutes until the
-- first open, by mailbox domain, and by link (with the clicks on that link); each separately for rated ones. Two more
-- rows count persons and domains. It is one statement, so that a destination joins the events of a person and an email
-- only once.
WITH pairs AS (
    SELECT *, {rated} AS rated, CAST(floor(epoch(first_delivered_at) / 3600) AS BIGINT) AS hour,
        {domain} AS domain,
        CASE
            WHEN epoch(first_opened_at) < epoch(first_delivered_at) THEN -1
            WHEN epoch(first_opened_at) - epoch(first_delivered_at) >= 604800 THEN 10080
            ELSE CAST(floor((epoch(first_opened_at) - epoch(first_delivered_at)) / 60) AS BIGINT)
        END AS delay
    FROM person_email
), largest AS (
    SELECT domain FROM pairs WHERE domain IS NOT NULL AND deliveries + bounces > 0
    GROUP BY domain ORDER BY count(*) DESC, domain LIMIT {most}
), clicks_by_address AS ( -- an email may have several links to one address
    SELECT email_id, person, link_url, CAST(sum(clicks) AS BIGINT) AS clicks
    FROM link_overview_clicked GROUP BY email_id, person, link_url
), clicked_pairs AS (
    SELECT pairs.email_id, pairs.person, link_url, rated, first_delivered_at, last_delivered_at, deliveries, opens,
        machine_opens, clicked.clicks, replies, bounces, complaints, unsubscribes
    FROM clicks_by_address AS clicked
    JOIN pairs ON pairs.email_id = clicked.email_id AND pairs.person = clicked.person
    WHERE rated = 1
), by_link AS (
    SELECT email_id, link_url, rated, {measures} FROM clicked_pairs GROUP BY email_id, link_url, rated
), links AS ( -- sorted apart: in ClickHouse `clicks` would otherwise be the column that is summed
    SELECT * FROM by_link ORDER BY clicked DESC, clicks DESC, link_url, email_id LIMIT {most}
)
SELECT 'email' AS kind, email_id AS name, CAST(NULL AS BIGINT) AS number, CAST(NULL AS TEXT) AS url, rated, {measures}
FROM pairs GROUP BY email_id, rated
UNION ALL
SELECT 'hour' AS kind, CAST(NULL AS TEXT) AS name, hour AS number, CAST(NULL AS TEXT) AS url, rated, {measures}
FROM pairs GROUP BY hour, rated
UNION ALL
SELECT 'delay' AS kind, CAST(NULL AS TEXT) AS name, delay AS number, CAST(NULL AS TEXT) AS url, rated, {measures}
FROM pairs WHERE rated = 1 GROUP BY delay, rated
UNION ALL
SELECT 'domain' AS kind, largest.domain AS name, CAST(NULL AS BIGINT) AS number, CAST(NULL AS TEXT) AS url,
    rated, {measures}
FROM pairs LEFT JOIN largest ON largest.domain = pairs.domain
WHERE pairs.domain IS NOT NULL GROUP BY largest.domain, rated
UNION ALL
SELECT 'domains' AS kind, CAST(NULL AS TEXT) AS name, count(DISTINCT domain) AS number, CAST(NULL AS TEXT) AS url,
    0 AS rated, {measures}
FROM pairs WHERE deliveries + bounces > 0
UNION ALL
SELECT 'people' AS kind, CAST(NULL AS TEXT) AS name, count(DISTINCT person) AS number, CAST(NULL AS TEXT) AS url,
    0 AS rated, {measures}
FROM pairs WHERE deliveries > 0
UNION ALL
SELECT 'link' AS kind, email_id AS name, CAST(NULL AS BIGINT) AS number, link_url AS url, rated, {measured} FROM links
