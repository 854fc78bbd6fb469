-- Fits messages to the types of `users` or `accounts`.

-- name: discard_unfit
-- The last value of each person (group), if it does not fit.
SELECT $table_name AS table_name, {key} AS row_id, $column_name AS column_name, {value} AS value,
    'does_not_fit' AS reason, received_at
FROM {messages} SEMI JOIN (
    SELECT arg_max(id, (coalesce(received_at, TIMESTAMPTZ '0001-01-01'), id)) AS id
    FROM {messages} SEMI JOIN latest_ids i ON i.id = {key} WHERE {cell} IS NOT NULL GROUP BY {key}) USING (id)
WHERE {cell} IS NOT NULL AND {fitting} IS NULL
