"""The imports of engine workers. One process imports them once, and the tests' workers are forked from it."""

import duckdb
import pyarrow.parquet

from autopilothq.sources.engine import coordinator

_ = coordinator, pyarrow.parquet
duckdb.default_connection().close()  # its threads would not exist after a fork
