"""`python -m tests.fake_autopilot.serve_profiles`: a space of people to try `autopilothq load profiles` with."""

import signal
from typing import Any

import click

from .profiles import FakeProfiles, ago


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8041, show_default=True, help="0 takes a free one.")
@click.option("--rate", type=int, help="Answer 429 beyond so many requests in any second.")
@click.option("--latency", default=0.0, show_default=True, help="Seconds that every answer takes.")
def main(host: str, port: int, rate: int | None, latency: float) -> None:
    """Runs Segment's Profile API on this machine: everyone asked about opened an email an hour ago."""
    with FakeProfiles(host=host, port=port, rate=rate, latency=latency) as server:
        server.everyone = lambda person: [_opened(person)]
        for name, value in (("BASE_URL", server.base_url), ("TOKEN", server.token), ("SPACE", server.space)):
            click.echo(f"export SOURCES__AUTOPILOTHQ__PROFILES__{name}={value!r}")
        click.echo("autopilothq load profiles --people emails.txt\n\nCtrl-C ends it.")
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


def _opened(person: str) -> dict[str, Any]:
    return {
        "type": "track",
        "event": "Email Opened",
        "message_id": f"api-{person}",
        "timestamp": ago(1 / 24),
        "external_ids": [{"collection": "users", "type": "email", "id": person.partition(":")[2]}],
        "properties": {"campaign_id": "campaign_1"},
    }


if __name__ == "__main__":
    # Blocked before any thread starts, so that the signals wait for sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main()
