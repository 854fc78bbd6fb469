"""Messages -> the tables of the warehouse, with rejects, discards and the books (spec: warehouse)."""

from .load import Warehouse
from .tables import SQL_TYPES, FileCount, Known, Rows, Settled, Stored, ordered

__all__ = ["SQL_TYPES", "FileCount", "Known", "Rows", "Settled", "Stored", "Warehouse", "ordered"]
