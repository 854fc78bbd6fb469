"""The dlt sources: where an origin meets the warehouse and dlt's hints."""

from .api import api
from .archive import archive
from .load import Report, limit_warning
from .profiles import profiles
from .tables import CannotMerge, NotPossible

__all__ = ["CannotMerge", "NotPossible", "Report", "api", "archive", "limit_warning", "profiles"]
