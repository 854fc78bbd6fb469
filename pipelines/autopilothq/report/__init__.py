"""The report: a page that shows what became of emails, and whether its numbers can be trusted."""

from .numbers import LIMITS, Limit, Report, report_dict
from .page import report_page

__all__ = ["LIMITS", "Limit", "Report", "report_dict", "report_page"]
