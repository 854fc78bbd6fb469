"""The report: a page about the results of emails, and about how far its numbers can be trusted."""

from .numbers import RATE_LIMITS, Absent, RateLimit, Report, report_dict
from .page import report_page
from .read import read_report

__all__ = ["RATE_LIMITS", "Absent", "RateLimit", "Report", "read_report", "report_dict", "report_page"]
