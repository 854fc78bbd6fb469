-- Made from pipelines/autopilothq/models by `make docs`: change it there.
WITH seen AS (
  SELECT
    person,
    MIN(occurred_at) AS first_seen_at,
    MAX(occurred_at) AS last_seen_at,
    COUNT(*) AS messages,
    MAX(user_id) AS user_id,
    COUNT(DISTINCT user_id) AS user_ids,
    MAX(contact_id) AS contact_id
  FROM {{ ref('person_timeline') }} AS person_timeline
  GROUP BY
    person
), ranked AS (
  SELECT
    person,
    ROW_NUMBER() OVER (
{%- if target.type in ['bigquery', 'databricks'] %}
      ORDER BY CASE WHEN first_seen_at IS NULL THEN 1 ELSE 0 END NULLS LAST, first_seen_at NULLS LAST, person NULLS LAST
{%- else %}
      ORDER BY CASE WHEN first_seen_at IS NULL THEN 1 ELSE 0 END, first_seen_at, person
{%- endif %}
    ) AS place
  FROM seen
), ids AS (
  SELECT
    person,
    'user id' AS kind,
{%- if target.type in ['snowflake', 'bigquery'] %}
    TRIM(user_id, CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ') AS id
{%- else %}
    TRIM(CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ' FROM user_id) AS id
{%- endif %}
  FROM {{ ref('messages') }} AS messages
  WHERE
    NOT user_id IS NULL
{%- if target.type in ['bigquery'] %}
  UNION DISTINCT
{%- else %}
  UNION
{%- endif %}
  SELECT
    person,
    'contact id',
{%- if target.type in ['snowflake', 'bigquery'] %}
    TRIM(context_traits_contact_id, CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ')
{%- else %}
    TRIM(CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ' FROM context_traits_contact_id)
{%- endif %}
  FROM {{ ref('messages') }} AS messages
  WHERE
    NOT context_traits_contact_id IS NULL
{%- if target.type in ['bigquery'] %}
  UNION DISTINCT
{%- else %}
  UNION
{%- endif %}
  SELECT
    person,
    'user id',
{%- if target.type in ['snowflake', 'bigquery'] %}
    TRIM(previous_id, CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ')
{%- else %}
    TRIM(CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ' FROM previous_id)
{%- endif %}
  FROM {{ ref('messages') }} AS messages
  WHERE
    NOT previous_id IS NULL
{%- if target.type in ['bigquery'] %}
  UNION DISTINCT
{%- else %}
  UNION
{%- endif %}
  SELECT
    person,
    'alias',
    CASE
      WHEN previous_id LIKE '%@%'
{%- if target.type in ['snowflake', 'bigquery'] %}
      THEN LOWER(TRIM(previous_id, CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' '))
      ELSE TRIM(previous_id, CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ')
{%- else %}
      THEN LOWER(TRIM(CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ' FROM previous_id))
      ELSE TRIM(CHR(  9) || CHR(  10) || CHR(  12) || CHR(  13) || ' ' FROM previous_id)
{%- endif %}
    END
  FROM {{ ref('messages') }} AS messages
  WHERE
    NOT previous_id IS NULL
{%- if target.type in ['bigquery'] %}
  UNION DISTINCT
{%- else %}
  UNION
{%- endif %}
  SELECT
    person,
    'alias',
    person
  FROM seen
), shared AS (
  SELECT
    kind,
    id
  FROM ids
  WHERE
    NOT person IS NULL AND id <> ''
  GROUP BY
    kind,
    id
  HAVING
    COUNT(*) BETWEEN 2 AND 10
), step_0 AS (
  SELECT
    ids.person,
    ids.kind,
    ids.id,
    ranked.place
  FROM ids
  JOIN shared
    ON shared.kind = ids.kind AND shared.id = ids.id
  JOIN ranked
    ON ranked.person = ids.person
), step_1 AS (
  SELECT
    person,
    kind,
    id,
    MIN(place) OVER (PARTITION BY person) AS place
  FROM (
    SELECT
      person,
      kind,
      id,
      MIN(place) OVER (PARTITION BY kind, id) AS place
    FROM step_0
  ) AS by_id
), step_2 AS (
  SELECT
    person,
    kind,
    id,
    MIN(place) OVER (PARTITION BY person) AS place
  FROM (
    SELECT
      person,
      kind,
      id,
      MIN(place) OVER (PARTITION BY kind, id) AS place
    FROM step_1
  ) AS by_id
), step_3 AS (
  SELECT
    person,
    kind,
    id,
    MIN(place) OVER (PARTITION BY person) AS place
  FROM (
    SELECT
      person,
      kind,
      id,
      MIN(place) OVER (PARTITION BY kind, id) AS place
    FROM step_2
  ) AS by_id
), step_4 AS (
  SELECT
    person,
    kind,
    id,
    MIN(place) OVER (PARTITION BY person) AS place
  FROM (
    SELECT
      person,
      kind,
      id,
      MIN(place) OVER (PARTITION BY kind, id) AS place
    FROM step_3
  ) AS by_id
), joined AS (
  SELECT
    person,
    MIN(place) AS place,
    MIN(kind) AS joined_by
  FROM step_4
  GROUP BY
    person
)
SELECT
{%- if target.type in ['redshift'] %}
  first_of.person AS "identity",
{%- else %}
  first_of.person AS identity,
{%- endif %}
  seen.person,
  CASE WHEN seen.person LIKE '%@%' THEN seen.person END AS email,
  seen.user_id,
  seen.user_ids,
  seen.contact_id,
  COALESCE(joined.joined_by, 'nothing') AS joined_by,
  COUNT(*) OVER (PARTITION BY first_of.person) AS persons,
  seen.messages,
  seen.first_seen_at,
  seen.last_seen_at
FROM seen
JOIN ranked
  ON ranked.person = seen.person
LEFT JOIN joined
  ON joined.person = seen.person
JOIN ranked AS first_of
  ON first_of.place = COALESCE(joined.place, ranked.place)
