"""Inspects schemas and destinations: tables and columns, how two schemas differ, and whether the data is fresh."""

from .changed_types import check_types_of_books, check_types_of_models
from .completeness import CampaignCounts
from .diff import (
    CATALOGUE,
    LATER,
    SWITCH,
    SWITCH_UNLOADED,
    Difference,
    DifferenceMessages,
    Schema,
    SchemaTable,
    differences,
    schema_of_catalogue,
)
from .formats import FORMATS, as_table, ddl, grid
from .live import described_tables, destination_of, kind_of, reading, reading_other, schema_of
from .received import Received, Waiting, read_received
from .schema import ColumnInfo, Statistics, TableInfo, catalogue
from .status import (
    Freshness,
    LastRun,
    Status,
    age,
    read_freshness,
    read_last_run,
    read_status,
    status_dict,
    status_text,
)
from .views import AppliedModels, ModelView, applied_models, in_models_dataset, view_comments, views_of

__all__ = [
    "CATALOGUE",
    "FORMATS",
    "LATER",
    "SWITCH",
    "SWITCH_UNLOADED",
    "AppliedModels",
    "CampaignCounts",
    "ColumnInfo",
    "Difference",
    "DifferenceMessages",
    "Freshness",
    "LastRun",
    "ModelView",
    "Received",
    "Schema",
    "SchemaTable",
    "Statistics",
    "Status",
    "TableInfo",
    "Waiting",
    "age",
    "applied_models",
    "as_table",
    "catalogue",
    "check_types_of_books",
    "check_types_of_models",
    "ddl",
    "described_tables",
    "destination_of",
    "differences",
    "grid",
    "in_models_dataset",
    "kind_of",
    "read_freshness",
    "read_last_run",
    "read_received",
    "read_status",
    "reading",
    "reading_other",
    "schema_of",
    "schema_of_catalogue",
    "status_dict",
    "status_text",
    "view_comments",
    "views_of",
]
