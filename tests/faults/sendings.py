"""Runs calls that send and are killed meanwhile, for the tests of this folder."""

import json
from collections.abc import Sequence
from pathlib import Path

import forked
from faults import killed_sending
from faults.killed_sending import Plan
from shared_loads import bare_environment


def run_sendings(plans: Sequence[Plan], folder: Path) -> None:
    """Runs plans one after the other; afterwards, the file `status` in each one's folder has its exit status."""
    listed = folder / "plans.json"
    listed.write_text(json.dumps(plans))
    done = forked.run(killed_sending.__file__, str(listed), env=bare_environment())
    assert done.returncode == 0, done.stderr
