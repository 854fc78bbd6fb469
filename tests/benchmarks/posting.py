"""Posts at a fixed rate over keep-alive connections, and prints the figures as one line of JSON.

    python tests/benchmarks/posting.py URL RATE BATCH CONNECTIONS SECONDS

RATE is in requests a second, 0 for as many as the receiver takes. BATCH is the number of messages in a request, 0 for
single ones. With a rate, a request's time counts from the moment at which it was due, so that stalls of the receiver
count.
"""

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

import uvloop

MESSAGE = {
    "anonymousId": "ada@example.com",
    "context": {
        "integration": {"name": "autopilothq", "version": "1.0.0"},
        "traits": {"contact_id": "person_00000000-0000-4000-8000-000000000001", "email": "ada@example.com"},
    },
    "event": "Email Opened", "integrations": {},
    "properties": {"campaign_id": "campaign_X", "email_id": "batchcampaign_1-Y", "email_subject": "Welcome"},
    "timestamp": "2026-11-01T05:06:07.000Z", "type": "track", "userId": "12345",
}  # fmt: skip
REST = json.dumps(MESSAGE, separators=(",", ":")).encode()[1:]
ANSWER = b'{"success": true}'
AHEAD = 0.0005  # seconds by which requests are sent early, because asyncio may wake that much too late


async def send(sender: int, url: str, batch: int, due: "asyncio.Queue[float]", times: list[float]) -> None:
    """Posts on one connection, one request for each time in the queue, until a negative one comes."""
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    head = b"POST /v1/%s HTTP/1.1\r\nhost: x\r\ncontent-length: " % (b"batch" if batch else b"track")
    number = 0
    while (when := await due.get()) >= 0:
        number += 1
        body = _body(f"{sender}-{number}", batch)
        writer.write(head + b"%d\r\n\r\n" % len(body) + body)
        answer = await reader.readuntil(ANSWER)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise ValueError(answer)
        times.append(time.perf_counter() - when)
    writer.close()


def _body(name: str, batch: int) -> bytes:
    if not batch:
        return b'{"messageId":"%s",' % name.encode() + REST
    messages = (b'{"messageId":"%s-%d",' % (name.encode(), one) + REST for one in range(batch))
    return b'{"batch":[' + b",".join(messages) + b'],"sentAt":"2026-11-01T05:06:08.000Z"}'


async def offer(rate: float, seconds: float, due: "asyncio.Queue[float]") -> None:
    """Puts due times into the queue at a fixed rate."""
    started, number = time.perf_counter(), 0
    while (now := time.perf_counter() - started) < seconds:
        while number < (now + AHEAD) * rate:
            due.put_nowait(started + number / rate)
            number += 1
        await asyncio.sleep(0.001)


async def as_many_as_are_taken(seconds: float, connections: int, due: "asyncio.Queue[float]") -> None:
    """Keeps the queue filled, so that each connection sends its next request as soon as one is answered."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        while due.qsize() < connections:
            due.put_nowait(time.perf_counter())
        await asyncio.sleep(0.001)


async def main(url: str, rate: float, batch: int, connections: int, seconds: float) -> None:
    """Sends, and prints the figures."""
    due: asyncio.Queue[float] = asyncio.Queue()
    times: list[float] = []
    senders = [asyncio.create_task(send(one, url, batch, due, times)) for one in range(connections)]
    started = time.perf_counter()
    await (offer(rate, seconds, due) if rate else as_many_as_are_taken(seconds, connections, due))
    for _ in senders:
        due.put_nowait(-1)
    await asyncio.gather(*senders)
    taken = time.perf_counter() - started
    times.sort()
    figures = {
        "requests": len(times), "rate": len(times) / taken, "p50": times[len(times) // 2],
        "p99": times[int(len(times) * 0.99)], "most": times[-1], "processor": time.process_time() / taken,
    }  # fmt: skip
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    _url, _rate, _batch, _connections, _seconds = sys.argv[1:]
    uvloop.run(main(_url, float(_rate), int(_batch), int(_connections), float(_seconds)))
