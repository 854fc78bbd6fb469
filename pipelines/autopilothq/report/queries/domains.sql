-- People x emails by mailbox domain, apart by whether they are rated. All domains but the largest are one row.
WITH by_domain AS (
    SELECT domain, rated, {measures}
    FROM (
        SELECT *, CASE WHEN person LIKE '%@%' THEN substr(person, strpos(person, '@') + 1) END AS domain, {rated} AS rated
        FROM person_email
    ) AS with_domain
    GROUP BY domain, rated
), sizes AS (
    SELECT domain, row_number() OVER (ORDER BY sum(attempted) DESC, domain) AS place
    FROM by_domain WHERE domain IS NOT NULL GROUP BY domain
)
SELECT CASE WHEN place <= {most} THEN by_domain.domain END AS name, rated, min(place) AS first_place,
    count(DISTINCT by_domain.domain) AS domains, CAST(sum(attempted) AS BIGINT) AS attempted,
    CAST(sum(bounced) AS BIGINT) AS bounced, CAST(sum(people) AS BIGINT) AS people,
    CAST(sum(complained) AS BIGINT) AS complained, CAST(sum(unsubscribed) AS BIGINT) AS unsubscribed
FROM by_domain JOIN sizes ON sizes.domain = by_domain.domain
GROUP BY CASE WHEN place <= {most} THEN by_domain.domain END, rated
ORDER BY first_place
