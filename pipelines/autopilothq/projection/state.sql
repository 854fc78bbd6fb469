-- The tables of a load's second half; docs/projection.md draws who writes and reads each. `seq` is the number of a line
-- in the load, `table_number` the number of a messages' table.

-- What parsing rejected and discarded, and what later steps add.
CREATE TABLE rejects (seq BIGINT, id VARCHAR, reason VARCHAR, message VARCHAR, raw VARCHAR);
CREATE TABLE discards (seq BIGINT, table_name VARCHAR, column_name VARCHAR, value VARCHAR, reason VARCHAR);
-- The same of rows of `users` and `accounts`, which are made of several messages.
CREATE TABLE discards_of_latest (
    table_name VARCHAR, row_id VARCHAR, column_name VARCHAR, value VARCHAR, reason VARCHAR, received_at TIMESTAMPTZ);

-- The tables of types of messages and of events (both by their JSON text); `repeats` only repeat an event's name.
CREATE TABLE kinds (kind VARCHAR, table_number INTEGER);
CREATE TABLE events (event VARCHAR, table_number INTEGER, slug VARCHAR, event_text VARCHAR, repeats VARCHAR[]);
CREATE TABLE no_extras (seq BIGINT, "column" VARCHAR, value VARCHAR);

-- Messages that the destination refused, or whose row of `table_name` it refused: the row of `row_id` is made again
-- without them where `again`.
CREATE TABLE refused (seq BIGINT, id VARCHAR, error VARCHAR, table_name VARCHAR, row_id VARCHAR, again BOOLEAN);

-- Messages that are not kept: copies within the load, and what is stored already.
CREATE TABLE duplicates (seq BIGINT);
-- The tables that have a message already. Of tracks: the event that `tracks` has for it, its id, and the number of its
-- event's table.
CREATE TABLE stored_in (seq BIGINT, table_number INTEGER, event VARCHAR, id VARCHAR, event_table INTEGER);
-- Of one event at a time, the tracks that its own table has too.
CREATE TABLE in_event_table (seq BIGINT);
-- Texts that adopted rows may have cut, and those that replace a cut one, by the number of the table and the column.
CREATE TABLE whole_texts (table_number INTEGER, seq BIGINT, id VARCHAR, name VARCHAR, text VARCHAR);
CREATE TABLE mends (table_number INTEGER, seq BIGINT, id VARCHAR, name VARCHAR, text VARCHAR);
-- When the loads ran that were complete, and the stored messages of others: these may have lost their discards.
CREATE TABLE complete_loads (loaded_at TIMESTAMPTZ);
CREATE TABLE discarded_again (seq BIGINT);
