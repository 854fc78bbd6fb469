-- The text columns of a schema in MySQL or MariaDB that are not compared byte by byte, so that different texts may be
-- equal. The third column is the collation, the fourth a definition of the column that is compared byte by byte.
SELECT table_name, column_name, collation_name, concat(
    IF(data_type = 'varchar', column_type, 'LONGTEXT'), ' CHARACTER SET utf8mb4 COLLATE ',
    IF(instr(version(), 'MariaDB') > 0, 'utf8mb4_nopad_bin', 'utf8mb4_0900_bin'),
    IF(is_nullable = 'NO', ' NOT NULL', ''))
FROM {columns}
WHERE table_schema = %s AND right(collation_name, 9) <> 'nopad_bin' AND right(collation_name, 8) <> '0900_bin'
