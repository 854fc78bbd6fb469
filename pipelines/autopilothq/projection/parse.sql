-- Parses lines; `lines` (`seq`, `text`) is an Arrow table.

-- name: probe
-- The shape of each line: the JSON text of all its keys, so lines with other keys have other shapes. It is null for
-- blank lines, and empty for lines that the engine must not read.
CREATE OR REPLACE TEMP TABLE probe AS
SELECT seq, CASE
    WHEN NOT starts_with(text, '{{') AND regexp_full_match(text, '\s*') THEN NULL
    WHEN NOT json_valid(text) OR contains(text, '\u0000') OR {lenient} OR {deep} THEN ''
    ELSE to_json(json_keys(text, {pointers}))::VARCHAR END AS shape
FROM lines

-- name: shapes
SELECT shape, count(*) FROM probe WHERE shape <> '' GROUP BY shape

-- name: irregular
-- The lines without a regular shape: this query if all shapes are regular, the next one if some are not.
SELECT seq, shape FROM probe WHERE shape IS NULL OR shape = ''

-- name: irregular_shapes
SELECT seq, shape FROM probe WHERE shape IS NULL OR shape NOT IN (SELECT shape FROM regular_shapes)
