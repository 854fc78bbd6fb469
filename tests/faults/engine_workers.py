"""What workers of an engine import: a process that the tests' workers are forked from imports it once."""

import duckdb
import pyarrow.parquet

from autopilothq.sources.engine import coordinator

_ = coordinator, pyarrow.parquet
duckdb.default_connection().close()  # its threads would not be there after a fork
