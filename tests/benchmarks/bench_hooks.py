"""Measures what Autopilot's hooks cost: becoming lines, and being merged into `contacts`.

The hooks come in a burst as after an import, each with a whole contact. They are loaded into an empty dataset, then
once more with later changes, so that every row is looked up and merged.
"""

import gzip
import json
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from autopilothq.receive.autopilot_hooks import hook_lines
from autopilothq.receive.messages import Arrival, parse_body
from benchmarks.processes import measured
from fake_autopilot.account import Account

CONTACTS = 50_000
FIRST = datetime(2026, 11, 1, 5, 6, 7, tzinfo=UTC)
PROGRAM = "from autopilothq.cli import main; main()"


def write(folder: Path, number: int) -> float:
    """Writes a published file with one burst; returns the processor seconds that making its lines took."""
    account, at, lines = Account(CONTACTS), FIRST + timedelta(days=number), []
    seconds = 0.0
    for contact in map(account.contact, range(CONTACTS)):
        contact["updated_at"] = at.isoformat()
        body = json.dumps({"event": "contact_updated", "contact": contact}).encode()
        started = time.process_time()
        lines.append(hook_lines(parse_body(body), Arrival(at)).data)
        seconds += time.process_time() - started
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{number}.gz").write_bytes(gzip.compress(b"".join(lines), 1))
    return seconds


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        for number, stored in enumerate(("none of them stored", "all of them stored")):
            seconds = write(here / "received/segment-logs/autopilot-shop/1793491200000", number)
            words = [sys.executable, "-c", PROGRAM, "load", "archive", "received"]
            cost = measured(words, here, {"DLT_DATA_DIR": str(here / "dlt")})
            print(f"{CONTACTS:,} hooks, {stored}: {1e6 * seconds / CONTACTS:.0f} µs each to become lines")
            print(f"  the load: {cost.wall:.1f} s, {cost.cpu:.1f} s of processors, {cost.memory:.0f} MB")


if __name__ == "__main__":
    main()
