-- Cohorts: people by the unit (a day, a week or four weeks, numbered since 1970) in which they got their first email,
-- and how many were active in it and in each later unit. `after` is null in the rows that count all people of a cohort.
WITH firsts AS (
    SELECT person, CAST(floor((min(epoch(occurred_at)) + {shift}) / {length}) AS BIGINT) AS cohort
    FROM email_events
    WHERE event = 'email_delivered' AND person IS NOT NULL AND email_id IS NOT NULL AND occurred_at IS NOT NULL
    GROUP BY person
), acted AS (
    SELECT DISTINCT person, CAST(floor((epoch(occurred_at) + {shift}) / {length}) AS BIGINT) AS unit
    FROM email_events
    WHERE event IN ('email_opened', 'email_clicked', 'email_replied') AND person IS NOT NULL AND email_id IS NOT NULL
)
SELECT cohort, unit - cohort AS after, count(*) AS people
FROM firsts JOIN acted ON acted.person = firsts.person
WHERE unit >= cohort GROUP BY cohort, unit - cohort
UNION ALL
SELECT cohort, NULL AS after, count(*) AS people FROM firsts GROUP BY cohort
