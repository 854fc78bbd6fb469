-- How lines are parsed; `lines` (`seq`, `text`) are an Arrow table.

-- name: probe
-- The shape of each line: the text of all its keys. Nobody can make a line of other keys that has the same. Blank lines
-- have none; that of lines which certainly are not JSON is empty.
CREATE OR REPLACE TEMP TABLE probe AS
SELECT seq, CASE
    WHEN NOT starts_with(text, '{{') AND regexp_full_match(text, '\s*') THEN NULL
    WHEN NOT json_valid(text) OR contains(text, '\u0000') OR {lenient} OR {deep} THEN ''
    ELSE to_json(json_keys(text, {pointers}))::VARCHAR END AS shape
FROM lines

-- name: shapes
SELECT shape, count(*) FROM probe WHERE shape <> '' GROUP BY shape

-- name: irregular
-- The lines that have none of the regular shapes, where these are all shapes there are, and where they are not.
SELECT seq, shape FROM probe WHERE shape IS NULL OR shape = ''

-- name: irregular_shapes
SELECT seq, shape FROM probe WHERE shape IS NULL OR shape NOT IN (SELECT shape FROM regular_shapes)
