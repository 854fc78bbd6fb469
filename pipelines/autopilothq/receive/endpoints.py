"""The endpoints of one process: their guards, and the limit on endpoints without settings."""

import logging
import os
from contextlib import suppress
from pathlib import Path

from ..catalog import ARCHIVE_FOLDER
from . import settings
from .room import NoRoom
from .routes import Endpoint
from .settings import Guard, ReceiveSettings

MOST_ENDPOINTS = 10_000  # endpoints whose guards are cached
MOST_OPEN = 100  # endpoints without settings; each has a folder and an open file

_log = logging.getLogger(__name__)


class Endpoints:
    """The guards of endpoints. The settings of an endpoint are looked up once."""

    def __init__(self, config: ReceiveSettings) -> None:
        self._config = config
        self._guards: dict[Endpoint, Guard] = {}

    def __contains__(self, endpoint: Endpoint) -> bool:
        return endpoint in self._guards

    def guard(self, endpoint: Endpoint, direct: bool) -> Guard:
        """Returns an endpoint's guard. Raises LookupError if there is no such endpoint, NoRoom if there are too many.

        An endpoint without settings exists only for programs on this machine, and only if they send `direct`ly, because
        a proxy would forward requests of other machines.
        """
        guard = self._guards.get(endpoint)
        if guard is None:
            guard = settings.guard(*endpoint)
            if not guard and not (self._config.is_local and direct):
                raise LookupError(endpoint)
            if not guard and not self._may_open(endpoint):
                _log.error(
                    "%s is not opened: there are already %d endpoints without settings", endpoint.folder, MOST_OPEN
                )
                raise NoRoom(f"There are already {MOST_OPEN} endpoints without settings.")
            if len(self._guards) < MOST_ENDPOINTS:
                self._guards[endpoint] = guard
        if not guard and not direct:
            raise LookupError(endpoint)
        return guard

    def _may_open(self, endpoint: Endpoint) -> bool:
        folders = {known.folder for known, guard in self._guards.items() if not guard}
        with suppress(OSError):
            folders.update(os.listdir(Path(self._config.folder, ARCHIVE_FOLDER)))
        return endpoint.folder in folders or len(folders) < MOST_OPEN
