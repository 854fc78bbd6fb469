-- The columns of the tables and views of a schema, with their types, in their order.
SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns
WHERE table_schema = $1 ORDER BY table_name, ordinal_position
