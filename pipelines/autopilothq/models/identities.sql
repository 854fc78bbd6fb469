-- One row per person, with the identity that the person belongs to. Persons share an identity if messages show them
-- with the same user id or contact id, or if an alias joins their ids, over at most four such steps. An id of more than
-- ten persons joins nobody. An identity is named after the one of its persons who was seen first.
WITH seen AS (
    SELECT person, min(occurred_at) AS first_seen_at, max(occurred_at) AS last_seen_at, count(*) AS messages,
        max(user_id) AS user_id, count(DISTINCT user_id) AS user_ids, max(contact_id) AS contact_id
    FROM person_timeline GROUP BY person
), ranked AS (
    SELECT person, row_number() OVER (
        ORDER BY CASE WHEN first_seen_at IS NULL THEN 1 ELSE 0 END, first_seen_at, person
    ) AS place
    FROM seen
), ids AS (
    SELECT person, 'user id' AS kind, trim(user_id, {blanks}) AS id FROM messages WHERE user_id IS NOT NULL
    UNION DISTINCT SELECT person, 'contact id', trim(context_traits_contact_id, {blanks}) FROM messages
    WHERE context_traits_contact_id IS NOT NULL
    UNION DISTINCT SELECT person, 'user id', trim(previous_id, {blanks}) FROM messages WHERE previous_id IS NOT NULL
    UNION DISTINCT SELECT person, 'alias',
        CASE WHEN previous_id LIKE '%@%' THEN lower(trim(previous_id, {blanks})) ELSE trim(previous_id, {blanks}) END
    FROM messages WHERE previous_id IS NOT NULL
    UNION DISTINCT SELECT person, 'alias', person FROM seen
), shared AS (
    SELECT kind, id FROM ids WHERE person IS NOT NULL AND id <> ''
    GROUP BY kind, id HAVING count(*) BETWEEN 2 AND 10
), step_0 AS (
    SELECT ids.person, ids.kind, ids.id, ranked.place
    FROM ids JOIN shared ON shared.kind = ids.kind AND shared.id = ids.id JOIN ranked ON ranked.person = ids.person
), step_1 AS (
    SELECT person, kind, id, min(place) OVER (PARTITION BY person) AS place
    FROM (SELECT person, kind, id, min(place) OVER (PARTITION BY kind, id) AS place FROM step_0) AS by_id
), step_2 AS (
    SELECT person, kind, id, min(place) OVER (PARTITION BY person) AS place
    FROM (SELECT person, kind, id, min(place) OVER (PARTITION BY kind, id) AS place FROM step_1) AS by_id
), step_3 AS (
    SELECT person, kind, id, min(place) OVER (PARTITION BY person) AS place
    FROM (SELECT person, kind, id, min(place) OVER (PARTITION BY kind, id) AS place FROM step_2) AS by_id
), step_4 AS (
    SELECT person, kind, id, min(place) OVER (PARTITION BY person) AS place
    FROM (SELECT person, kind, id, min(place) OVER (PARTITION BY kind, id) AS place FROM step_3) AS by_id
), joined AS (
    SELECT person, min(place) AS place, min(kind) AS joined_by FROM step_4 GROUP BY person
)
SELECT first_of.person AS identity, seen.person, CASE WHEN seen.person LIKE '%@%' THEN seen.person END AS email,
    seen.user_id, seen.user_ids, seen.contact_id, coalesce(joined.joined_by, 'nothing') AS joined_by,
    count(*) OVER (PARTITION BY first_of.person) AS persons,
    seen.messages, seen.first_seen_at, seen.last_seen_at
FROM seen
JOIN ranked ON ranked.person = seen.person
LEFT JOIN joined ON joined.person = seen.person
JOIN ranked AS first_of ON first_of.place = coalesce(joined.place, ranked.place)
