"""The models: views over the tables of events, which define the numbers that people and programs use.

Each model is a file of this folder, in DuckDB's SQL. It reads other models, `email_events` (the rows of the seven
events) and `messages` (the rows of all messages); `{counts}` and the like stand for the text of the files with these
names. A model becomes one query that needs nothing else:

>>> sql("daily", dialect="postgres", schema="autopilothq")
"""

from .described import BY_NAME, MODELS, Metric, Model
from .render import Existing, Period, declared_tables, in_dialect, point, query, sql

__all__ = [
    "BY_NAME",
    "MODELS",
    "Existing",
    "Metric",
    "Model",
    "Period",
    "declared_tables",
    "in_dialect",
    "point",
    "query",
    "sql",
]
