"""A server that speaks Ortto's REST API over real HTTP, with made-up people and faults on demand.

    with FakeOrtto(people=250) as server:
        server.order("POST", "/person/get", status=429, content={"code": "rate-limit", "try-in-seconds": 1})
        Ortto(OrttoSettings(api_key=server.key, base_url=server.base_url))

`python -m tests.fake_ortto --people 1000` starts it for manual use.
"""

import sys
from pathlib import Path

if __name__ != "fake_ortto":  # started from the checkout, where Python does not find `fake_autopilot`
    sys.path.append(str(Path(__file__).parents[1]))

from .account import Account, Record
from .server import FakeOrtto

__all__ = ["Account", "FakeOrtto", "Record"]
