-- One row per journey. A person who got several of its emails counts once. Its name is that of its last event with one
-- that is not blank.
WITH spellings AS (
    SELECT campaign_id, campaign_name, max(occurred_at) AS last_at
    FROM email_events WHERE campaign_id IS NOT NULL
    GROUP BY campaign_id, campaign_name
), names AS (
    SELECT campaign_id, campaign_name,
        row_number() OVER (
            PARTITION BY campaign_id
            ORDER BY CASE WHEN trim(campaign_name, {blanks}) <> '' THEN 0 ELSE 1 END,
                CASE WHEN last_at IS NULL THEN 1 ELSE 0 END, last_at DESC, campaign_name
        ) AS place
    FROM spellings
), by_person AS (
    SELECT campaign_id, person, {counts} FROM email_events WHERE campaign_id IS NOT NULL GROUP BY campaign_id, person
), totals AS (
    SELECT campaign_id AS id, {measures} FROM by_person GROUP BY campaign_id
), emails AS (
    SELECT campaign_id AS of_id, count(DISTINCT email_id) AS emails
    FROM email_events WHERE campaign_id IS NOT NULL GROUP BY campaign_id
)
SELECT campaign_id, campaign_name, emails, {measured}, {rates}
FROM names JOIN totals ON totals.id = names.campaign_id JOIN emails ON emails.of_id = names.campaign_id
WHERE place = 1
