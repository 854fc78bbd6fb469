"""The command `receive`, which receives events over HTTP."""

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click

from ..warehouses.settings import TargetOptions
from .options import Duration, LocalPath, WholeNumber, require_value, target_options, wait_option

_MB = 1 << 20
_SIZES = {"KB": 1 << 10, "MB": _MB, "GB": 1 << 30}
_ADDRESS = "HOST:PORT"


class _Address(click.ParamType[tuple[str, int]]):
    """An address to listen on, such as `127.0.0.1:8080` or `[::1]:8080`."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Parses the address."""
        host, _, port = str(value).rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65_535:
            self.fail(f"Expected an address and a port, such as 127.0.0.1:8080, but got {value!r}.", param, ctx)
        return host.removeprefix("[").removesuffix("]"), int(port)


class _Rotation(click.ParamType[timedelta | int]):
    """A time span such as `60s`, or a size such as `16MB`."""

    name = "rotation"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta | int:
        """Parses the span, or the size in bytes."""
        if match := re.fullmatch(r"(\d{1,6})(KB|MB|GB)", str(value)):
            return int(match[1]) * _SIZES[match[2]]
        if not re.fullmatch(r"\d{1,8}[smhd]", str(value)):
            self.fail(f"Expected a time or a size, such as 60s or 16MB, but got {value!r}.", param, ctx)
        return Duration().convert(value, param, ctx)


@click.command("receive", short_help="Receive events over HTTP into an archive.")
@click.argument("folder", type=LocalPath(file_okay=False))
@click.option(
    "--listen", type=_Address(), metavar=_ADDRESS, default="127.0.0.1:8080", show_default=True,
    help="Where senders connect.",
)  # fmt: skip
@click.option(
    "--workers", type=WholeNumber(1, 64), metavar="N", default=1, show_default=True, help="How many processes receive."
)
@click.option("--metrics", type=_Address(), metavar=_ADDRESS, help="Serve metrics for Prometheus there.")
@click.option(
    "--upload",
    metavar="URL",
    callback=require_value,
    help="Send files to a bucket, and delete each here once it is there.",
)
@click.option(
    "--rotate",
    type=_Rotation(),
    multiple=True,
    metavar="60s|16MB",
    help="Publish a file after this time, or at this size before compression; repeatable.  [default: 60s, 16MB]",
)
@click.option(
    "--load-every", type=Duration(), metavar="TIME", help="Also load published files into the warehouse, this often."
)
@click.option("--compact", is_flag=True, help="Receive nothing: join small files that are loaded already, and exit.")
@wait_option
@target_options
def receive(
    folder: str,
    listen: tuple[str, int],
    rotate: Sequence[timedelta | int],
    load_every: timedelta | None,
    compact: bool,
    wait: timedelta,
    target: TargetOptions,
    **options: Any,
) -> None:
    """Receive events of Segment, RudderStack, Autopilot and Ortto over HTTP, and keep them as an archive in FOLDER.

    A request is answered once its messages are on the disk. Who may send is set in dlt's configuration, in
    [receive.v1], and in [receive.segment.NAME], [receive.rudder.NAME], [receive.autopilot.NAME] and
    [receive.ortto.NAME].
    """
    if compact:
        if load_every is not None or options["upload"]:
            raise click.UsageError("Expected --compact without --load-every and --upload.")
        from .compacting import print_compacted

        print_compacted(folder, target, wait)
        return
    from . import receiving

    for limit in rotate:
        name, value = ("bytes", limit) if isinstance(limit, int) else ("seconds", limit.total_seconds())
        if value <= 0:
            raise click.BadParameter(f"Expected more than 0, got {value:g}.", param_hint="--rotate")
        options[f"rotate_{name}"] = value
    if load_every is None and (any(target) or wait):
        named = "a target" if any(target) else "--wait"
        raise click.UsageError(f"Expected --load-every with {named}: without it nothing is loaded.")
    receiving.run_receiver(folder, {**options, "host": listen[0], "port": listen[1]}, load_every, target, wait)
