"""Kills a receiver again and again while senders send, and checks that it kept what it acknowledged.

    python tests/faults/killed_receiver.py [ROUNDS]

`make test` runs a few rounds, this command a thousand.
"""

import itertools
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

from receiving import hidden, publish_left, published, receiver

SENDERS = 4
BATCH = 20


def rounds(folder: Path, number: int, chance: random.Random, workers: int = 1, least: int = 0) -> tuple[list[str], int]:
    """Kills a receiver `number` times; returns the ids that were acknowledged, and the number of messages sent.

    It continues until at least `least` are acknowledged, which takes longer on a busy machine. In one round, several
    workers are spawned, as they are outside of tests; that takes longer than forking them.
    """
    acknowledged: list[str] = []
    numbers = itertools.count()
    kills = 0
    while kills < number or len(acknowledged) < least:
        kills += 1
        words = ("--rotate", f"{chance.choice((1, 3600))}s", "--rotate", "64KB", "--workers", str(workers))
        with receiver(folder, *words, spawned=workers > 1 and kills == number) as one:
            stop = threading.Event()
            senders = [
                threading.Thread(target=_send, args=(one.url, numbers, acknowledged, stop)) for _ in range(SENDERS)
            ]
            one.http.get(f"{one.url}/healthz")  # waits until its processes have started
            for sender in senders:
                sender.start()
            time.sleep(chance.uniform(0.02, 0.5))
            os.killpg(one.process.pid, signal.SIGKILL)
            stop.set()
            for sender in senders:
                sender.join()
    publish_left(folder)
    return acknowledged, next(numbers)


def _send(url: str, numbers: "itertools.count[int]", acknowledged: list[str], stop: threading.Event) -> None:
    with httpx.Client(timeout=10) as http:
        while not stop.is_set():
            some = [f"m{next(numbers)}" for _ in range(random.choice((1, BATCH)))]
            batch = [{"type": "track", "event": "Email Opened", "userId": "1", "messageId": one} for one in some]
            try:
                answer = http.post(f"{url}/v1/batch", content=json.dumps({"batch": batch}))
            except httpx.HTTPError:
                continue
            if answer.status_code == 200:
                acknowledged += some


def lost(folder: Path, acknowledged: list[str]) -> set[str]:
    """Returns the acknowledged messages that the archive lacks; fails if a hidden file is left, or a line is torn."""
    assert hidden(folder) == []
    found = published(folder)
    assert all(isinstance(one, dict) for one in found), [one for one in found if not isinstance(one, dict)]
    ids = [one["messageId"] for one in found]
    assert len(ids) == len(set(ids))  # no sender repeated one
    return set(acknowledged) - set(ids)


def main() -> int:
    """Runs the rounds; returns 1 if anything is lost."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seed = random.randrange(1 << 32)
    with tempfile.TemporaryDirectory() as folder:
        acknowledged, sent = rounds(Path(folder), number, random.Random(seed))
        missing = lost(Path(folder), acknowledged)
    sys.stdout.write(
        f"{number} kills, {sent} sent, {len(acknowledged)} acknowledged, {len(missing)} lost, seed {seed}\n"
    )
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main())
