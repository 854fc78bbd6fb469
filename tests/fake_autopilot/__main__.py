"""`python -m tests.fake_autopilot --contacts 1000`: an account to try the program with."""

import signal

import click

from .server import KEY, FakeAutopilot


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--contacts", default=1000, show_default=True, help="How many made-up contacts the account has.")
@click.option("--seed", default=1, show_default=True, help="Other contacts.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8040, show_default=True, help="0 takes a free one.")
@click.option("--key", default=KEY, show_default=True, help="The key that opens it.")
@click.option("--rate", type=int, help="Answer 429 beyond so many requests in any second.")
@click.option("--latency", default=0.0, show_default=True, help="Seconds that every answer takes.")
def main(contacts: int, seed: int, host: str, port: int, key: str, rate: int | None, latency: float) -> None:
    """A server that speaks Autopilot's REST API, with made-up contacts, on this machine."""
    with FakeAutopilot(contacts, seed=seed, host=host, port=port, key=key, rate=rate, latency=latency) as server:
        click.echo(f"A made-up Autopilot account with {contacts:,} contacts is at {server.base_url}. To load it:\n")
        for room in ("SOURCES", "DESTINATION"):
            click.echo(f"export {room}__AUTOPILOTHQ__BASE_URL={server.base_url}")
            click.echo(f"export {room}__AUTOPILOTHQ__API_KEY={key}")
        click.echo("autopilothq load api\n\nCtrl-C ends it.")
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    # Blocked before any thread starts, so that the signals wait for sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main()
