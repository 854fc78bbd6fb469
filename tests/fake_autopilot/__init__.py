"""A server that speaks Autopilot's REST API over real HTTP, with made-up contacts and faults on demand.

    with FakeAutopilot(contacts=250) as server:
        server.order("GET", "/contacts/*", status=503, times=2)
        Autopilot(AutopilotSettings(api_key=server.key, base_url=server.base_url))

`python -m tests.fake_autopilot --contacts 1000` starts it for manual use. FakeProfiles is a fake of Segment's Profile
API.
"""

from .account import Account, contact
from .http import Fault, Request
from .profiles import FakeProfiles
from .server import FakeAutopilot

__all__ = ["Account", "FakeAutopilot", "FakeProfiles", "Fault", "Request", "contact"]
