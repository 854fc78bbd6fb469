-- One row per mailbox domain, of persons who are known by an email. Providers judge mails, not people: compare their
-- limits with the rates per mail.
WITH by_person AS (
    SELECT {domain} AS domain, person, {counts}
    FROM email_events WHERE person LIKE '%@%' GROUP BY person
), totals AS (
    SELECT domain, {measures} FROM by_person WHERE domain IS NOT NULL GROUP BY domain
)
SELECT domain, {measured}, {rates},
    CAST(bounces AS DOUBLE) / nullif(delivered + bounces, 0) AS bounces_per_mail,
    CAST(complaints AS DOUBLE) / nullif(delivered, 0) AS complaints_per_mail
FROM totals
