-- What loads treat as blank. For `trim` alone each warehouse decides: PostgreSQL removes spaces, DuckDB Unicode's, too.
chr(9) || chr(10) || chr(12) || chr(13) || ' '
