-- Finds the ids of deleted persons, in rows and in any text.

-- name: suppressed_hashes
-- The suppression list; `pairs` are pairs of salt and hash.
CREATE OR REPLACE TEMP TABLE suppressed_hashes AS SELECT salt::VARCHAR AS salt, hash::VARCHAR AS hash FROM pairs

-- name: salts
-- The salts of the list, with the two blocks of the key for salts that are used with a key.
CREATE OR REPLACE TEMP TABLE salts AS
SELECT DISTINCT salt,
    CASE WHEN keyed THEN $inside::BLOB END AS inside, CASE WHEN keyed THEN $outside::BLOB END AS outside
FROM (SELECT salt, starts_with(salt, $mark) AS keyed FROM suppressed_hashes)

-- name: searched_ids
-- The ids that are known in plain text as well; `folded` is the form in which they are searched for.
CREATE OR REPLACE TEMP TABLE searched_ids (kind VARCHAR, value VARCHAR, folded VARCHAR)

-- name: on_list
-- The rows of `ids` (with `kind` and `value` among their columns) that are on the list.
SELECT * EXCLUDE (salt, hash) FROM (
    SELECT i.*, salt, hash_of_id(salt, kind, value, inside, outside) AS hash FROM ({ids}) i CROSS JOIN salts)
SEMI JOIN suppressed_hashes USING (salt, hash)

-- name: suppressed
CREATE OR REPLACE TABLE suppressed (seq BIGINT, id VARCHAR)

-- name: suppress_column
INSERT INTO suppressed SELECT seq, id FROM messages WHERE {text} IN (FROM suppressed_ids)

-- name: suppress_rows
-- The same for values that are buffered as rows: `{rows}` (`seq`, `id`).
INSERT INTO suppressed
SELECT seq, id FROM messages WHERE seq IN (SELECT seq FROM {rows} WHERE id IN (FROM suppressed_ids))

-- name: suppressed_once
CREATE OR REPLACE TABLE suppressed AS SELECT DISTINCT seq, id FROM suppressed

-- name: tagged_ids
-- Ids with their kinds in front (`email:…`). An id with an @ is an email in any column except a contact's id.
SELECT * EXCLUDE (tag),
    CASE WHEN contains(raw, '@') AND tag <> 'contact_id' THEN 'email' ELSE tag END AS kind,
    CASE WHEN contains(raw, '@') AND tag <> 'contact_id' THEN fold_email(raw) ELSE raw END AS value
FROM (SELECT *, split_part(id, ':', 1) AS tag, substr(id, strpos(id, ':') + 1) AS raw FROM {texts})

-- name: emails
-- The emails anywhere in `texts` (`key`, `text`): everything with an @ between blanks and quotes; within that, what is
-- left between punctuation, and the addresses of RFC 5322; and all JSON texts with an @. Marks and joiners count as
-- letters.
SELECT key, 'email' AS kind, rtrim(raw, '.') AS raw
FROM (
    SELECT key, unnest(regexp_extract_all(text, '[^\s\"]*@[^\s\"]*')) AS run
    FROM texts WHERE contains(text, '@')) runs
JOIN (SELECT run, unnest(flatten([
        [plain],
        regexp_extract_all(plain, '[^\s\"<>()\[\]{},;:=\\|@]+@[\pL\pM\pN\x{200C}\x{200D}._-]+'),
        regexp_extract_all(
            plain, '[\pL\pM\pN\x{200C}\x{200D}.!#$%&''*+/=?^_`{|}~-]+@[\pL\pM\pN\x{200C}\x{200D}._-]+')])) AS raw
    FROM (SELECT run, unescaped(run) AS plain FROM (
        SELECT DISTINCT unnest(regexp_extract_all(text, '[^\s\"]*@[^\s\"]*')) AS run
        FROM texts WHERE contains(text, '@')))) found USING (run)
UNION ALL
SELECT key, 'email', unescaped(unnest(regexp_extract_all(text, '"((?:[^"\\@]|\\.)*@(?:[^"\\]|\\.)*)', 1)))
FROM texts WHERE contains(text, '@')

-- name: keyed
-- The values in `texts` whose keys match `{pattern}` (key, value), as ids. `{kinds}` has pairs of the end of a key
-- before `id`, and the kind of id that a key with this end holds.
SELECT key, CASE WHEN kind <> 'contact_id' AND contains(raw, '@') THEN 'email' ELSE kind END AS kind, raw
FROM (
    SELECT key, regexp_replace(lower(regexp_extract(pair, {pattern}, 1)), '[_ -]?id$', '') AS word,
        unescaped(regexp_replace(regexp_extract(pair, {pattern}, 2), '^["'']', '')) AS raw
    FROM (SELECT key, unnest(regexp_extract_all(text, {pattern})) AS pair FROM texts)) pairs
JOIN (VALUES {kinds}) words(ending, kind) ON ends_with(pairs.word, words.ending)

-- name: keys_on_list
-- The keys of the texts that have a mention (`key`, `kind`, `raw`) which is on the list.
SELECT DISTINCT key FROM mentions SEMI JOIN ({ids}) USING (kind, raw)

-- name: holding
-- The texts, in searchable form, that hold an id which is known in plain text. The ids are the right side of the join,
-- which is held in memory, while the texts are streamed.
SELECT DISTINCT key, text
FROM (SELECT key, searchable(text) AS text FROM texts)
JOIN (SELECT folded FROM searched_ids WHERE {condition}) ON contains(text, folded)
