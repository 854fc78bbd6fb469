"""`python -m tests.fake_ortto --people 1000`: an account to try the program with."""

import signal

import click

from .server import KEY, FakeOrtto


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--people", default=1000, show_default=True, help="How many made-up people the account has.")
@click.option("--seed", default=1, show_default=True, help="Other people.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8042, show_default=True, help="0 takes a free one.")
@click.option("--key", default=KEY, show_default=True, help="The key that opens it.")
@click.option("--rate", type=int, help="Answer 429 beyond so many requests in any second.")
@click.option("--activity-rate", type=int, help="The same for people's activities: Ortto has 1.")
@click.option("--latency", default=0.0, show_default=True, help="Seconds that every answer takes.")
@click.option("--refuse-filters", is_flag=True, help="Refuse filters on times and activities.")
@click.option("--refuse-times", is_flag=True, help="Refuse the fields tme::…")
@click.option("--oldest-first", is_flag=True, help="Give the oldest activities first.")
def main(
    people: int,
    seed: int,
    host: str,
    port: int,
    key: str,
    rate: int | None,
    activity_rate: int | None,
    latency: float,
    refuse_filters: bool,
    refuse_times: bool,
    oldest_first: bool,
) -> None:
    """A server that speaks Ortto's REST API, with made-up people, on this machine."""
    with FakeOrtto(people, seed=seed, host=host, port=port, key=key, rate=rate, latency=latency) as server:
        server.activity_rate = activity_rate
        server.takes_filters, server.takes_times = not refuse_filters, not refuse_times
        server.oldest_first = oldest_first
        click.echo(f"A made-up Ortto account with {people:,} people is at {server.base_url}. To load it:\n")
        for room in ("SOURCES", "DESTINATION"):
            click.echo(f"export {room}__AUTOPILOTHQ__ORTTO__BASE_URL={server.base_url}")
            click.echo(f"export {room}__AUTOPILOTHQ__ORTTO__API_KEY={key}")
        click.echo("autopilothq load ortto\n\nCtrl-C ends it.")
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    # Blocked before any thread starts, so that the signals wait for sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main()
