-- One row per day of UTC: what happened on it, whenever the emails were delivered. Rates would compare the opens of
-- one day with the deliveries of another, so there are none. Events whose time cannot be read have the day null.
WITH by_person AS (
    SELECT {day} AS day, person, {counts} FROM email_events GROUP BY {day}, person
)
SELECT day,
    CAST(sum(deliveries) AS BIGINT) AS delivered,
    CAST(sum(opens) AS BIGINT) AS opens,
    CAST(sum(machine_opens) AS BIGINT) AS machine_opens,
    CAST(sum(clicks) AS BIGINT) AS clicks,
    CAST(sum(replies) AS BIGINT) AS replies,
    CAST(sum(bounces) AS BIGINT) AS bounces,
    CAST(sum(complaints) AS BIGINT) AS complaints,
    CAST(sum(unsubscribes) AS BIGINT) AS unsubscribes,
    count(CASE WHEN deliveries > 0 THEN person END) AS people,
    count(CASE WHEN opens > 0 THEN person END) AS openers,
    count(CASE WHEN clicks > 0 THEN person END) AS clickers,
    count(CASE WHEN replies > 0 THEN person END) AS repliers,
    count(CASE WHEN bounces > 0 THEN person END) AS bounced,
    count(CASE WHEN complaints > 0 THEN person END) AS complainers,
    count(CASE WHEN unsubscribes > 0 THEN person END) AS unsubscribers
FROM by_person GROUP BY day
