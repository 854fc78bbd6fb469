"""The errors of load packages: after DeliveryFailed dlt keeps the rows, after DeliveryImpossible it gives up."""

import dlt

from ..errors import ApiError, AutopilothqError
from ..warehouses.dlt_internals import DestinationTerminalException, DestinationTransientException
from ..warehouses.dlt_internals.resources import failed_jobs


class DeliveryFailed(AutopilothqError, DestinationTransientException):
    """Rows could not be delivered now. dlt keeps them in their load package, and tries again."""


class DeliveryImpossible(AutopilothqError, DestinationTerminalException):
    """The key or a setting is wrong, so no row could be delivered."""


def terminal_error(error: ApiError) -> DeliveryFailed | DeliveryImpossible:
    """Returns the error that ends the run at once.

    Usually it is DeliveryImpossible. If dlt is configured to drop packages that fail permanently, or to complete loads
    without their failed jobs, it is DeliveryFailed, so that no row is lost.
    """
    drops = dlt.config.get("load.auto_abort_on_terminal_error", bool) or not failed_jobs().raise_on_failed_jobs
    return DeliveryFailed(str(error)) if drops else DeliveryImpossible(str(error))
