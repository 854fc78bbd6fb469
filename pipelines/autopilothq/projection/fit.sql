-- Fits rows of `users` and `accounts` to the types of their table.

-- name: discard_unfit
SELECT $table_name AS table_name, id AS row_id, $column_name AS column_name, {value} AS value,
    'does_not_fit' AS reason, received_at
FROM ({made}) WHERE {cell} IS NOT NULL AND {fitting} IS NULL
