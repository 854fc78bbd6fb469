"""Loads on an engine: the projector that makes the rows of a source's loads."""

import hashlib
import secrets
from concurrent.futures import Executor
from dataclasses import dataclass

from ...projection import engine
from ..load_folder import scratch_of_projection
from ..plan import PlannedLoad
from ..project import ProjectedLoad
from ..refused import target_of
from .coordinator import Coordinator
from .executors import EngineFactory, Workers
from .work_folder import work_folder

THREADS = 2  # of the coordinator's engine


@dataclass(frozen=True)
class EngineProjector:
    """The projector of loads on an engine: an executor, or a function that makes one. Its workers share `work_url`.

    Without `work_url`, they share the load's own folder, which is enough for processes on one machine.
    """

    engine: Executor | EngineFactory
    work_url: str | None = None

    def __call__(self, load: PlannedLoad) -> ProjectedLoad | None:
        """Makes the rows; returns None if it found messages that cannot become rows."""
        scratch = scratch_of_projection(load.target.folder)
        home = self.work_url or str(scratch / "work")
        with (
            work_folder(home, _owner(load)) as folder,
            Workers(self.engine) as workers,
            engine.connect(str(scratch), load.settings.memory, THREADS) as con,
        ):
            return Coordinator(load, workers, folder, con, scratch).project()


def _owner(load: PlannedLoad) -> str:
    """Returns a name for a pipeline and its target, by which a load finds the work folders of killed ones."""
    pipeline = load.extraction.pipeline
    if pipeline is None:
        return secrets.token_hex(8)
    # Not `short_digest`: other versions must find what this one leaves behind, and it must find what they left.
    return f"{pipeline.pipeline_name}-{hashlib.sha256(target_of(pipeline).encode()).hexdigest()[:12]}"
