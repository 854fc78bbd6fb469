-- Aggregates over rows that each have the `counts` of one person. Each person counts once; those who opened, clicked
-- and so on count only if the email was delivered to them, and otherwise in `undelivered`. `attempted`, `bounced` and
-- the sums of events count regardless of delivery.
min(first_delivered_at) AS first_delivered_at,
max(last_delivered_at) AS last_delivered_at,
CAST(sum(deliveries) AS BIGINT) AS delivered,
count(CASE WHEN deliveries > 0 THEN person END) AS people,
count(CASE WHEN deliveries + bounces > 0 THEN person END) AS attempted,
count(CASE WHEN deliveries > 0 AND opens > 0 THEN person END) AS opened,
count(CASE WHEN deliveries > 0 AND opens > coalesce(machine_opens, 0) THEN person END) AS human_opened,
count(CASE WHEN deliveries > 0 AND clicks > 0 THEN person END) AS clicked,
count(CASE WHEN deliveries > 0 AND replies > 0 THEN person END) AS replied,
count(CASE WHEN bounces > 0 THEN person END) AS bounced,
count(CASE WHEN deliveries > 0 AND complaints > 0 THEN person END) AS complained,
count(CASE WHEN deliveries > 0 AND unsubscribes > 0 THEN person END) AS unsubscribed,
count(
    CASE WHEN deliveries = 0 AND opens + clicks + replies + complaints + unsubscribes > 0 THEN person END
) AS undelivered,
CAST(sum(opens) AS BIGINT) AS opens,
CAST(sum(machine_opens) AS BIGINT) AS machine_opens,
CAST(sum(clicks) AS BIGINT) AS clicks,
CAST(sum(replies) AS BIGINT) AS replies,
CAST(sum(bounces) AS BIGINT) AS bounces,
CAST(sum(complaints) AS BIGINT) AS complaints,
CAST(sum(unsubscribes) AS BIGINT) AS unsubscribes
