"""A server that speaks Autopilot's REST API over real HTTP, with made-up contacts and faults to order.

    with FakeAutopilot(contacts=250) as server:
        server.order("GET", "/contacts/*", status=503, times=2)
        Autopilot(server.key, base_url=server.base_url)

`python -m tests.fake_autopilot --contacts 1000` starts it for people.
"""

from .account import Account
from .server import FakeAutopilot, Fault, Request

__all__ = ["Account", "FakeAutopilot", "Fault", "Request"]
