"""Inspects schemas and destinations: tables and columns, how two schemas differ, and whether the data is fresh."""

from .completeness import CampaignCounts, Count
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
from .formats import FORMATS, ddl, grid
from .live import (
    dataset_name,
    described,
    elsewhere,
    kind_of,
    reading,
    schema_of,
    target,
)
from .received import Received, Waiting, read_received
from .schema import ColumnInfo, Statistics, TableInfo, catalogue
from .status import Status, age, read_status, status_dict, status_text
from .views import AppliedModels, ModelView, applied, at_models, view_comments, views_of

__all__ = [
    "CATALOGUE",
    "FORMATS",
    "LATER",
    "SWITCH",
    "SWITCH_UNLOADED",
    "AppliedModels",
    "CampaignCounts",
    "ColumnInfo",
    "Count",
    "Difference",
    "DifferenceMessages",
    "ModelView",
    "Received",
    "Schema",
    "SchemaTable",
    "Statistics",
    "Status",
    "TableInfo",
    "Waiting",
    "age",
    "applied",
    "at_models",
    "catalogue",
    "dataset_name",
    "ddl",
    "described",
    "differences",
    "elsewhere",
    "grid",
    "kind_of",
    "read_received",
    "read_status",
    "reading",
    "schema_of",
    "schema_of_catalogue",
    "status_dict",
    "status_text",
    "target",
    "view_comments",
    "views_of",
]
