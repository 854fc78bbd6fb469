-- `users` and `accounts`: rows that are made from all messages about a person or a group. `{key}` is the column of the
-- messages that holds the id. Rows are made for the ids in `latest_ids`, from the messages in `latest_messages`. If
-- many lines are long, `latest_gathered` has all messages, and those two tables have one part of them at a time.

-- name: changed
-- The ids of the rows to make: those that messages of this load are about, and those that lose a refused message.
CREATE OR REPLACE TABLE latest_ids AS
SELECT {key} AS id FROM messages WHERE kind = $kind AND blank_as_null({key}) IS NOT NULL
UNION SELECT row_id FROM refused WHERE again AND table_name = $table_name

-- name: all
-- The ids of all rows: those of this load, and those of all stored messages.
CREATE OR REPLACE TABLE latest_ids AS
SELECT id FROM latest_ids UNION SELECT {key} FROM {gathered} WHERE blank_as_null({key}) IS NOT NULL

-- name: last_messages
-- The messages of `latest_gathered` that have a person's last value of a trait, or are a person's last message.
INSERT INTO last_messages SELECT unnest([{last_ids}])
FROM latest_gathered SEMI JOIN latest_ids i ON i.id = {key} GROUP BY {key}

-- name: parts
-- The persons with the numbers of their parts. A part has few enough bytes for the engine's memory.
CREATE OR REPLACE TABLE latest_parts AS
SELECT id, (sum(size) OVER (ORDER BY id) - size) // {room} AS part FROM (
    SELECT {key} AS id, sum({bytes}) AS size
    FROM latest_gathered SEMI JOIN last_messages USING (id) SEMI JOIN latest_ids i ON i.id = {key} GROUP BY {key})

-- name: some
-- The messages of some of these parts.
FROM latest_gathered SEMI JOIN last_messages USING (id)
SEMI JOIN (FROM latest_parts WHERE part BETWEEN {lowest} AND {highest}) i ON i.id = {key}

-- name: part
CREATE OR REPLACE TABLE latest_ids AS SELECT id FROM latest_parts WHERE part = {part};
CREATE OR REPLACE TABLE latest_messages AS FROM latest_some SEMI JOIN latest_ids i ON i.id = {key}

-- name: values
-- The values of some traits of all messages, as rows (`id`, `received_at`, `message`, `name`, `type`, `value`).
INSERT INTO latest_values
FROM (SELECT {key}, received_at, id, unnest([{structs}], recursive := true)
    FROM latest_messages SEMI JOIN latest_ids i ON i.id = {key})
WHERE value IS NOT NULL

-- name: last_values
-- The last value of each trait.
CREATE OR REPLACE TABLE latest_values AS FROM latest_values QUALIFY row_number() OVER (
    PARTITION BY id, name ORDER BY coalesce(received_at, TIMESTAMPTZ '0001-01-01') DESC, message DESC) = 1

-- name: too_wide
-- The values that a row of the destination has no room for: columns of its table (`{existing}`) get room first, then
-- the others by name.
CREATE OR REPLACE TABLE latest_too_wide AS FROM (
    SELECT *, sum({bytes}) OVER (PARTITION BY id ORDER BY name NOT IN ({existing}), name) AS bytes
    FROM latest_values WHERE name NOT IN ({declared}))
WHERE bytes > {room}

-- name: discard_too_wide
SELECT $table_name AS table_name, id AS row_id, substr(name, $start) AS column_name,
    CASE type WHEN 'text' THEN to_json(value)::VARCHAR ELSE value END AS value, 'row_too_wide' AS reason, received_at
FROM latest_too_wide

-- name: delete_too_wide
DELETE FROM latest_values WHERE (id, name) IN (SELECT (id, name) FROM latest_too_wide)

-- name: rows
CREATE OR REPLACE TABLE {table} AS
SELECT {select} FROM latest_messages SEMI JOIN latest_ids i ON i.id = {key} GROUP BY {key}

-- name: rows_of_values
CREATE OR REPLACE TABLE {table} AS
SELECT {select} FROM (SELECT {key} AS id, max(received_at) AS received_at FROM latest_messages
    SEMI JOIN latest_ids i ON i.id = {key} GROUP BY {key}) m
LEFT JOIN (PIVOT (SELECT id, name, value FROM latest_values) ON name IN ({names}) USING first(value) GROUP BY id)
    USING (id)
