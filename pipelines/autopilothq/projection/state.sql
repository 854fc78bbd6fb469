-- The tables of a load's second half; docs/projection.md shows what writes and reads each. `seq` is a line's number in
-- the load, `table_number` the number of a table of messages.

-- What parsing rejected and discarded; later steps add to it.
CREATE TABLE rejects (seq BIGINT, id VARCHAR, reason VARCHAR, message VARCHAR, raw VARCHAR);
CREATE TABLE discards (seq BIGINT, table_name VARCHAR, column_name VARCHAR, value VARCHAR, reason VARCHAR);
-- The same for rows of `users` and `accounts`, which are made from several messages.
CREATE TABLE discards_of_latest (
    table_name VARCHAR, row_id VARCHAR, column_name VARCHAR, value VARCHAR, reason VARCHAR, received_at TIMESTAMPTZ);

-- The numbers of the tables of types of messages, and of events. `event` is JSON text, or its digest if it is long;
-- `repeats` are the texts that only repeat the event's name.
CREATE TABLE kinds (kind VARCHAR, table_number INTEGER);
CREATE TABLE events (event VARCHAR, table_number INTEGER, slug VARCHAR, event_text VARCHAR, repeats VARCHAR[]);
CREATE TABLE no_extras (seq BIGINT, "column" VARCHAR, value VARCHAR);

-- Messages that the destination refused, or whose row of `table_name` it refused. If `again`, the row `row_id` must be
-- made again without the message.
CREATE TABLE refused (seq BIGINT, id VARCHAR, error VARCHAR, table_name VARCHAR, row_id VARCHAR, again BOOLEAN);
-- Messages of deleted persons.
CREATE TABLE suppressed (seq BIGINT, id VARCHAR);

-- Messages that are not kept: duplicates within the load, and those that are stored already.
CREATE TABLE duplicates (seq BIGINT);
-- The tables that have a message already; for a track, also the event that `tracks` has for it, its id, and the number
-- of its event's table.
CREATE TABLE stored_in (seq BIGINT, table_number INTEGER, event VARCHAR, id VARCHAR, event_table INTEGER);
-- The tracks that are also in their event's own table, for one event at a time.
CREATE TABLE in_event_table (seq BIGINT);
-- Whole texts that may be cut in adopted rows, and those of them that replace a cut text, by table number and column.
CREATE TABLE whole_texts (table_number INTEGER, seq BIGINT, id VARCHAR, name VARCHAR, text VARCHAR);
CREATE TABLE mends (table_number INTEGER, seq BIGINT, id VARCHAR, name VARCHAR, text VARCHAR);
-- The times of complete loads, and the stored messages of other loads, whose discards may be lost.
CREATE TABLE complete_loads (loaded_at TIMESTAMPTZ);
CREATE TABLE discarded_again (seq BIGINT);
-- Numbers for the rows of the books.
CREATE SEQUENCE row_numbers;
