"""Loads one archive with this package and with its peers in turn, each as a process of its own, and prints a table.

`python tests/benchmarks/compare.py --events 1000000 --rounds 3` makes an archive of that size and an environment for
each peer below `build/`, all with the DuckDB that this package is tested with. A peer that cannot be installed or does
not run here gets a line with the reason. The comparison fails if a peer ends with other events than the archive's: one
for each line if it keeps duplicates, otherwise one for each id. FIGURES.md keeps what was measured.
"""

import argparse
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "pipelines"), str(ROOT / "tests")]

import duckdb  # noqa: E402

from autopilothq import sample  # noqa: E402
from benchmarks.processes import Cost, Failed, measured  # noqa: E402
from environments import environment  # noqa: E402

HERE = Path(__file__).parent
BUILD = ROOT / "build" / "bench"
DUCKDB = f"duckdb=={duckdb.__version__}"
COMMAND = "from autopilothq.cli import main; main()"
OF_TABLE = "SELECT count(*) FROM messages WHERE {} = 'track'"
TIMEOUT = 3600.0


class Peer(NamedTuple):
    """A program that loads an archive into a DuckDB file.

    `script` is a file next to this one; None stands for this package's command. It runs in an environment of its own
    with `packages`. `events` is the query that counts the tracks that it stored. If `once`, it stores each message
    once, and a second load of the same lines adds nothing. A `slow` one runs only in the first round.
    """

    name: str
    script: str | None
    packages: tuple[str, ...] = (DUCKDB,)
    events: str = "SELECT count(*) FROM tracks"
    once: bool = False
    slow: bool = False


class Truth(NamedTuple):
    """The number of an archive's tracks: of lines, and of distinct ids."""

    lines: int
    ids: int


EXPERT = "expert's script"
PEERS = (
    Peer(EXPERT, "expert_duckdb.py", once=True),
    Peer("autopilothq", None, events="SELECT count(*) FROM autopilothq.tracks", once=True),
    Peer("DuckDB alone", "duckdb_alone.py"),
    Peer("chDB, Parquet, DuckDB", "chdb_parquet.py", ("chdb", DUCKDB)),
    Peer("polars, Parquet, DuckDB", "polars_parquet.py", ("polars", DUCKDB)),
    Peer(
        "dlt as documented",
        "stock_dlt.py",
        ("dlt[duckdb,filesystem]", DUCKDB),
        OF_TABLE.format("type"),
        once=True,
        slow=True,
    ),
    Peer("sling", "sling_merge.py", ("sling", DUCKDB), OF_TABLE.format("type"), once=True, slow=True),
)


class Runs(NamedTuple):
    """The costs of a peer's runs: into an empty file, and with the same lines again in files with other names."""

    first: list[Cost]
    again: list[Cost]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000, help="messages in the archive (200000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each peer runs (3)")
    parser.add_argument("--only", nargs="*", help="a part of the names of some peers; the expert's script runs always")
    options = parser.parse_args(arguments)
    archive, truth = made_archive(options.events)
    again = renamed(archive, archive.with_name(f"{archive.name}-again"))
    peers = [
        peer
        for peer in PEERS
        if options.only is None or peer.name == EXPERT or any(word in peer.name for word in options.only)
    ]
    runs = {peer.name: Runs([], []) for peer in peers}
    left_out: dict[str, str] = {}
    busy = [os.getloadavg()[0]]
    for number in range(options.rounds):
        for peer in peers:
            if peer.name in left_out or (peer.slow and number):
                continue
            try:
                run(peer, archive, again, truth, runs[peer.name])
            except (Failed, subprocess.CalledProcessError) as error:
                left_out[peer.name] = str(error)
        busy.append(os.getloadavg()[0])
    print(
        f"\n{options.events:,} events: {truth.lines:,} tracks with {truth.ids:,} ids; {os.cpu_count()} cores;", end=" "
    )
    print(f"programs at work meanwhile (load average): {min(busy):.1f} to {max(busy):.1f}\n")
    print("\n".join(table(peers, runs, left_out)))
    return 1 if any("events" in why for why in left_out.values()) else 0


def made_archive(events: int) -> tuple[Path, Truth]:
    """Returns a sample archive of so many messages, which is made only once, and what is in it."""
    folder = BUILD / f"sample-{events}"
    known = folder / "truth.json"
    if not known.exists():
        shutil.rmtree(folder, ignore_errors=True)
        sample.write(str(folder), events)
        known.write_text(json.dumps(_truth(folder)))
    return folder, Truth(*json.loads(known.read_text()))


def _truth(archive: Path) -> Truth:
    lines, ids = 0, set()
    for file in archive.rglob("*.gz"):
        with gzip.open(file, "rt", encoding="utf-8-sig") as text:
            for message in map(json.loads, filter(str.strip, text)):
                if message["type"] == "track":
                    lines += 1
                    ids.add(message["messageId"])
    return Truth(lines, len(ids))


def renamed(archive: Path, to: Path) -> Path:
    """Returns a folder with the archive's files under other names, which is made only once."""
    if not to.exists():
        for file in archive.rglob("*.gz"):
            copy = to / file.relative_to(archive).with_name(f"again-{file.name}")
            copy.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, copy)
    return to


def run(peer: Peer, archive: Path, again: Path, truth: Truth, runs: Runs) -> None:
    """Runs a peer, and if it stores each message once, runs it again on the same lines. Raises Failed."""
    folder = BUILD / "peers" / peer.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for archive_, costs in ((archive, runs.first), (again, runs.again))[: 2 if peer.once and not peer.slow else 1]:
        costs.append(measured(command(peer, archive_), folder, surroundings(peer, folder), TIMEOUT))
        with duckdb.connect(str(folder / "peer.duckdb"), read_only=True) as con:
            ((stored,),) = con.execute(peer.events).fetchall()
        wanted = truth.ids if peer.once else truth.lines
        if stored != wanted:
            raise Failed(f"Expected {wanted:,} events, but it stored {stored:,}.")
        print(f"{peer.name:26} {costs[-1].wall:7.1f} s {costs[-1].cpu:7.1f} s {costs[-1].memory:6.0f} MB", flush=True)


def command(peer: Peer, archive: Path) -> list[str | Path]:
    """Returns the words of the peer's command. Creates its environment if it is missing."""
    if peer.script is None:
        load = ("load", "archive", str(archive), "--destination", "duckdb", "--credentials", "peer.duckdb")
        return [sys.executable, "-c", COMMAND, *load]
    return [programs(peer) / "python", HERE / peer.script, archive, "peer.duckdb"]


def programs(peer: Peer) -> Path:
    """Returns the folder with the programs of the peer's environment."""
    name = "-".join(package.partition("=")[0].partition("[")[0] for package in peer.packages)
    return environment(ROOT / "build" / "peers" / name, *peer.packages, constraint=ROOT / "constraints.txt")


def surroundings(peer: Peer, folder: Path) -> dict[str, str]:
    """Returns the environment variables of a run, which keep all of its files in its folder."""
    own = {"DLT_DATA_DIR": str(folder / "dlt"), "RUNTIME__DLTHUB_TELEMETRY": "false"}
    if peer.script is None:
        return own | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return own | {"PATH": f"{programs(peer)}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": ""}


COLUMNS = (
    "who",
    "each once",
    "seconds",
    "times the expert's",
    "processor seconds",
    "times the expert's",
    "peak MB",
    "again, all duplicates",
)


def table(peers: Sequence[Peer], runs: dict[str, Runs], left_out: dict[str, str]) -> Iterator[str]:
    """Yields the lines of the table, with medians."""
    expert = runs[EXPERT].first
    yield f"| {' | '.join(COLUMNS)} |"
    yield f"|{'---|' * len(COLUMNS)}"
    for peer in peers:
        if peer.name in left_out:
            yield f"| {peer.name} | left out: {left_out[peer.name]} |"
            continue
        first, again = runs[peer.name]
        cost, once, second = medians(first), "yes" if peer.once else "no", ""
        # Only runs of the same round are compared, because the machine was equally busy.
        pairs = list(zip(first, expert, strict=False))
        wall = times([(one.wall, base.wall) for one, base in pairs])
        cpu = times([(one.cpu, base.cpu) for one, base in pairs])
        if again:
            after = medians(again)
            second = f"{after.wall:.1f} s, {times([(after.wall, cost.wall)])} times the first"
        figures = f"{cost.wall:.1f} | {wall} | {cost.cpu:.1f} | {cpu} | {cost.memory:,.0f} | {second}"
        yield f"| {peer.name} | {once} | {figures} |"


def times(pairs: Sequence[tuple[float, float]]) -> str:
    """Returns the median of ratios."""
    return f"{statistics.median(one / base for one, base in pairs):.2f}" if pairs else ""


def medians(costs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(column) for column in zip(*costs, strict=True)))


if __name__ == "__main__":
    sys.exit(main())
