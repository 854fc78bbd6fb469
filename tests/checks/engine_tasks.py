"""Tasks that harm their worker, which a test makes the coordinator send instead of its own."""

import os
import resource
import signal
from pathlib import Path

from autopilothq.sources.engine.parse_task import ParsedShare, ParseTask
from autopilothq.sources.engine.row_tasks import PartitionFiles, RowsTask
from autopilothq.sources.engine.tasks import CannotBecomeRows, WorkerContext


class Dying(ParseTask):
    """Kills every worker that runs it."""

    def run(self) -> ParsedShare:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("The worker is dead.")


class Cramped(ParseTask):
    """Finds the disk full when it writes."""

    def run(self) -> ParsedShare:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        try:
            return super().run()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def die_once(context: WorkerContext, mark: str) -> None:
    """Kills this worker, unless one has died this way before, which the file `mark` above the work folders records."""
    path = Path(context.folder.url).parents[3] / mark
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)


class DyingOnce(ParseTask):
    """Kills the first worker that has done it, before the coordinator knows."""

    def run(self) -> ParsedShare:
        done = super().run()
        die_once(self.context, "died reading")
        return done


class RowsDyingOnce(RowsTask):
    """Kills the first worker that has done it, before the coordinator knows."""

    def run(self) -> PartitionFiles | CannotBecomeRows:
        done = super().run()
        die_once(self.context, "died making rows")
        return done
