"""The tables have what real senders push: the libraries that Segment, RudderStack and Jitsu publish.

Each sends over loopback, with and without compression, one message and many. Python's libraries are installed into
environments of their own; Node's need `npm`, and are left out without it.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from calling import Call
from contract.duck import query
from environments import environment
from receiving import Receiver, published, receiver

HOME = Path(__file__).parents[2] / "build" / "senders"
KEY, JITSU_KEY = "the write key", "jitsu:the secret"
NODE = {
    "@segment/analytics-node": "3",
    "@rudderstack/rudder-sdk-node": "3",
    "@jitsu/js": "1",
}
EVENTS = 250

# The libraries differ only in their module, and in the attribute that names the server.
PYTHON = """
import sys
import MODULE.analytics as analytics
analytics.write_key, analytics.HOST, analytics.gzip = sys.argv[2], sys.argv[1], sys.argv[3] == "gzip"
analytics.on_error = lambda error, items: sys.exit(str(error))
analytics.identify("person", {"email": "ada@example.com", "plan": "é"})
for number in range(int(sys.argv[4])):
    analytics.track("person", "Email Opened", {"campaign_id": "c1", "number": number, "price": 1.5})
analytics.page("person", "Docs", "Start")
analytics.flush()
analytics.shutdown()
"""
SEGMENT_PYTHON = PYTHON.replace("MODULE", "segment").replace("HOST", "host")
RUDDER_PYTHON = PYTHON.replace("MODULE", "rudderstack").replace("HOST", "dataPlaneUrl")
SEGMENT_NODE = """
import { Analytics } from '@segment/analytics-node'
const [url, key, , number] = process.argv.slice(2)
const analytics = new Analytics({ writeKey: key, host: url })
analytics.on('error', error => { console.error(error); process.exit(1) })
analytics.identify({ userId: 'person', traits: { email: 'ada@example.com', plan: 'é' } })
for (let n = 0; n < number; n++)
  analytics.track({ userId: 'person', event: 'Email Opened', properties: { campaign_id: 'c1', number: n, price: 1.5 } })
analytics.page({ userId: 'person', category: 'Docs', name: 'Start' })
await analytics.closeAndFlush()
"""
RUDDER_NODE = """
import pkg from '@rudderstack/rudder-sdk-node'
const [url, key, gzip, number] = process.argv.slice(2)
const Analytics = pkg.default ?? pkg
const analytics = new Analytics(key, { dataPlaneUrl: url, gzip: gzip === 'gzip', flushAt: 20 })
analytics.identify({ userId: 'person', traits: { email: 'ada@example.com', plan: 'é' } })
for (let n = 0; n < number; n++)
  analytics.track({ userId: 'person', event: 'Email Opened', properties: { campaign_id: 'c1', number: n, price: 1.5 } })
analytics.page({ userId: 'person', name: 'Start', properties: { category: 'Docs' } })
await analytics.flush()
setTimeout(() => process.exit(0), 1500)
"""

JITSU_NODE = """
import jitsuJs from '@jitsu/js'
const [url, key, , number] = process.argv.slice(2)
const jitsu = jitsuJs.jitsuAnalytics({ host: url, writeKey: key })
await jitsu.identify('person', { email: 'ada@example.com', plan: 'é' })
for (let n = 0; n < number; n++)
  await jitsu.track('Email Opened', { campaign_id: 'c1', number: n, price: 1.5 })
await jitsu.page({ name: 'Start' })
"""


@pytest.fixture
def running() -> Iterator[Receiver]:
    """A receiver that requires a write key."""
    with receiver(env={"RECEIVE__V1__WRITE_KEYS": json.dumps([KEY, JITSU_KEY])}) as one:
        yield one


def python(package: str) -> Path:
    """Returns the Python of an environment with the package."""
    return environment(HOME / package.partition("=")[0], package) / "python"


def check_stored(running: Receiver, call: Call, traits: str = "") -> None:
    """Checks that the tables have all that was sent, once, with its times and without its key.

    `traits` is the prefix of the columns that have the traits.
    """
    assert running.stop() == ""
    kept = published(running.folder)
    assert not [key for key in (KEY, JITSU_KEY) if key in json.dumps(kept)]
    assert call("load", "archive", str(running.folder)).status == 0
    assert query("SELECT sum(stored), sum(duplicates), sum(rejected) FROM autopilothq._audit") == [(EVENTS + 2, 0, 0)]
    opened = query(
        "SELECT user_id, campaign_id, number, price, context_library_name IS NOT NULL,"
        " abs(date_diff('second', timestamp, received_at)) < 300, original_timestamp IS NOT NULL, sent_at IS NOT NULL"
        " FROM autopilothq.email_opened ORDER BY number"
    )
    assert opened == [("person", "c1", number, 1.5, True, True, True, True) for number in range(EVENTS)]
    assert query(f"SELECT id, {traits}email, {traits}plan FROM autopilothq.users") == [
        ("person", "ada@example.com", "é")
    ]
    assert query("SELECT user_id, name FROM autopilothq.pages") == [("person", "Start")]


@pytest.mark.parametrize("compression", ["gzip", "plain"])
@pytest.mark.parametrize(
    ("package", "program", "traits"),
    [
        ("segment-analytics-python==2.4.*", SEGMENT_PYTHON, ""),
        ("rudder-sdk-python==2.1.*", RUDDER_PYTHON, "context_traits_"),
    ],
    ids=["segment", "rudder"],
)
def test_libraries_of_python(
    running: Receiver, call: Call, package: str, program: str, traits: str, compression: str
) -> None:
    words = [str(python(package)), "-c", program, running.url, KEY, compression, str(EVENTS)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    check_stored(running, call, traits)


def packages() -> Path:
    """Returns the folder with Node's libraries."""
    folder = HOME / "node"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = json.dumps({"type": "module", "private": True, "dependencies": NODE})
    file = folder / "package.json"
    if not file.exists() or file.read_text() != wanted or not (folder / "node_modules").exists():
        file.write_text(wanted)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=folder, check=True)
    return folder


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node")
@pytest.mark.parametrize(
    ("program", "compression"),
    [(SEGMENT_NODE, "plain"), (RUDDER_NODE, "gzip"), (RUDDER_NODE, "plain"), (JITSU_NODE, "plain")],
    ids=["segment", "rudder gzip", "rudder", "jitsu"],
)
def test_libraries_of_node(running: Receiver, call: Call, program: str, compression: str) -> None:
    script = packages() / "send.mjs"
    script.write_text(program)
    key = JITSU_KEY if program is JITSU_NODE else KEY
    words = ["node", str(script), running.url, key, compression, str(EVENTS)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    check_stored(running, call)
