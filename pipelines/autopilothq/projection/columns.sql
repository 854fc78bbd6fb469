-- The values of extras. `{examined}` are some messages, with a WHERE condition; `{extras}` are their values that are
-- buffered as rows. Discards have the columns `seq`, `table_name`, `column_name`, `value` and `reason`.

-- name: row_values
-- The type bits and the number of each column's values that are buffered as rows, by table; for `tracks`, only the
-- columns of the context. `numbered` are the messages to look at.
SELECT table_number, "column", type_bits(value), count(*) FROM extras JOIN numbered USING (seq)
WHERE table_number > 0 GROUP BY ALL
UNION ALL
SELECT 0, "column", type_bits(value), count(*) FROM extras JOIN numbered USING (seq)
WHERE kind = 'track' AND starts_with("column", 'context_') GROUP BY ALL

-- name: column_values
-- The type bits and the number of the values in the listed columns, by table and by the column's number in the list.
SELECT table_number, number, type_bits(value), count(*) FROM (
    SELECT {table_number} AS table_number, unnest([{listed}]) AS value, unnest(range({count})) AS number
    FROM {examined}
) WHERE value IS NOT NULL GROUP BY ALL ORDER BY ALL

-- name: gather_extras
-- The values, buffered as rows, of the messages of small tables.
CREATE OR REPLACE TABLE gathered_extras AS SELECT table_number, seq, "column", value
FROM extras JOIN (SELECT seq, table_number FROM messages WHERE {where}) USING (seq)

-- name: discard_column
-- The values of a column that its table does not get, if they are buffered as a column.
SELECT seq, $table_name AS table_name, $column_name AS column_name, {cell} AS value, $reason AS reason
FROM {examined} AND {cell} IS NOT NULL

-- name: discard_rows
-- The same for values that are buffered as rows; `left_out` are their columns.
SELECT seq, $table_name AS table_name, x."column" AS column_name, value, $reason AS reason FROM {extras} x
SEMI JOIN left_out o ON o."column" = x."column"

-- name: discard_misfits
-- Values that cannot become their column's type.
SELECT seq, $table_name AS table_name, $column_name AS column_name, {cell} AS value, 'does_not_fit' AS reason
FROM {examined} AND {misfit}

-- name: discard_row_misfits
-- The same for values that are buffered as rows; `types` are the types of their columns.
SELECT seq, $table_name AS table_name, x."column" AS column_name, value, 'does_not_fit' AS reason
FROM {extras} x JOIN types t ON t."column" = x."column" WHERE {misfit}

-- name: has_wide_row
-- Returns a row if a message has so many values that a row of the destination may have no room for them.
SELECT 1 FROM {extras} GROUP BY seq HAVING count(*) > {values} LIMIT 1

-- name: too_wide
-- The values that a row of the destination has no room for. Columns that the table has already get room first, then the
-- others by name.
CREATE TABLE {name} AS SELECT seq, "column" FROM (
    SELECT seq, "column", sum(bytes) OVER (PARTITION BY seq ORDER BY new, "column") AS bytes
    FROM (SELECT seq, x."column", w.new, {bytes} AS bytes FROM {extras} x JOIN widths w ON w."column" = x."column"))
WHERE bytes > {room}

-- name: discard_too_wide
SELECT seq, $table_name AS table_name, "column" AS column_name, value, 'row_too_wide' AS reason
FROM extras SEMI JOIN {name} USING (seq, "column")

-- name: discard_without_table
-- The properties of messages whose events have no table of their own: first those that are buffered as columns, then
-- those that are buffered as rows.
SELECT seq, 'tracks' AS table_name, $column_name AS column_name, {cell} AS value,
    CASE WHEN slug IS NULL THEN 'no_column' ELSE 'too_many_tables' END AS reason
FROM messages WHERE {where} AND {cell} IS NOT NULL

-- name: discard_rows_without_table
SELECT seq, 'tracks' AS table_name, "column" AS column_name, value,
    CASE WHEN slug IS NULL THEN 'no_column' ELSE 'too_many_tables' END AS reason
FROM extras JOIN (SELECT seq, slug FROM messages WHERE {where}) m USING (seq)
WHERE NOT starts_with("column", 'context_')
