"""Calls that send and are killed on the way, as the tests of this folder run them."""

import json
from collections.abc import Sequence
from pathlib import Path

import forked
from faults import killed_sending
from faults.killed_sending import Plan
from shared_loads import bare_environment


def run_sendings(plans: Sequence[Plan], folder: Path) -> None:
    """Runs plans one after the other; afterwards `status` in each one's folder says how it ended."""
    listed = folder / "plans.json"
    listed.write_text(json.dumps(plans))
    done = forked.run(killed_sending.__file__, str(listed), env=bare_environment())
    assert done.returncode == 0, done.stderr
