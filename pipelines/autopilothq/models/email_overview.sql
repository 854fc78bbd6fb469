-- One row per email. Its names are from its last event that has both a name and a journey, or at least a name; blank
-- text is none.
WITH spellings AS (
    SELECT email_id, email_name, email_subject, campaign_id, campaign_name, transactional, max(occurred_at) AS last_at
    FROM email_events WHERE email_id IS NOT NULL
    GROUP BY email_id, email_name, email_subject, campaign_id, campaign_name, transactional
), names AS (
    SELECT email_id, email_name, email_subject, campaign_id, campaign_name, transactional,
        row_number() OVER (
            PARTITION BY email_id
            ORDER BY CASE WHEN trim(email_name, {blanks}) <> '' THEN 0 ELSE 1 END,
                CASE WHEN trim(campaign_id, {blanks}) <> '' THEN 0 ELSE 1 END,
                CASE WHEN last_at IS NULL THEN 1 ELSE 0 END, last_at DESC,
                email_name, email_subject, campaign_id, campaign_name
        ) AS place
    FROM spellings
), by_person AS (
    SELECT email_id, person, {counts} FROM email_events WHERE email_id IS NOT NULL GROUP BY email_id, person
), totals AS (
    SELECT email_id AS id, {measures} FROM by_person GROUP BY email_id
)
SELECT email_id, email_name, email_subject, campaign_id, campaign_name, transactional, {measured}, {rates}
FROM names JOIN totals ON totals.id = names.email_id
WHERE place = 1
