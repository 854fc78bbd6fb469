"""How a load package fails for dlt: both errors are also dlt's, so that it keeps the rows or gives up."""

import dlt

from ..errors import ApiError, AutopilothqError
from ..warehouses.dlt_internals import (
    DestinationTerminalException,
    DestinationTransientException,
    ends_with_failed_jobs,
)


class DeliveryFailed(AutopilothqError, DestinationTransientException):
    """Rows could not be delivered now. dlt keeps them in their load package, and tries again."""


class DeliveryImpossible(AutopilothqError, DestinationTerminalException):
    """The key or a setting is wrong, so no row could be delivered."""


def terminal_error(error: ApiError) -> DeliveryFailed | DeliveryImpossible:
    """Returns the error that ends the run at once.

    If dlt is set to drop packages that fail permanently, or to end loads as complete without their failed jobs, it is
    the transient one, so that no row is lost.
    """
    drops = dlt.config.get("load.auto_abort_on_terminal_error", bool) or ends_with_failed_jobs()
    return DeliveryFailed(str(error)) if drops else DeliveryImpossible(str(error))
