"""Tasks that do a worker harm, for a coordinator to send in the place of its first ones."""

import os
import resource
import signal

from autopilothq.sources.engine.parse_task import ParsedShare, ParseTask


class Dying(ParseTask):
    """Kills its worker each time."""

    def run(self) -> ParsedShare:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("The worker is dead.")


class Cramped(ParseTask):
    """Has no room on the disk for what it writes."""

    def run(self) -> ParsedShare:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        try:
            return super().run()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
