-- Parses lines; `lines` (`seq`, `text`) is an Arrow table.

-- name: probe
-- The shape of each line: the text of all its keys. Nobody can construct a line of other keys with the same shape.
-- Blank lines have none; the shape of lines that the engine must not read is empty.
CREATE OR REPLACE TEMP TABLE probe AS
SELECT seq, CASE
    WHEN NOT starts_with(text, '{{') AND regexp_full_match(text, '\s*') THEN NULL
    WHEN NOT json_valid(text) OR contains(text, '\u0000') OR {lenient} OR {deep} THEN ''
    ELSE to_json(json_keys(text, {pointers}))::VARCHAR END AS shape
FROM lines

-- name: shapes
SELECT shape, count(*) FROM probe WHERE shape <> '' GROUP BY shape

-- name: irregular
-- The lines without a regular shape: first if all shapes are regular, then if some are not.
SELECT seq, shape FROM probe WHERE shape IS NULL OR shape = ''

-- name: irregular_shapes
SELECT seq, shape FROM probe WHERE shape IS NULL OR shape NOT IN (SELECT shape FROM regular_shapes)
