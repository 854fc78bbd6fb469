"""The settings of the receiver: its address, its limits, and the secrets of its endpoints."""

import functools
import ipaddress
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple

import dlt

from ..display import nearest, shortened
from ..errors import InvalidSetting
from ..segment.ortto import OrttoNames, names_of_ids

RECEIVE_SECTION = "receive"
ENDPOINT_KINDS = ("v1", "segment", "rudder", "autopilot", "ortto")
"""The kinds of endpoints. `v1` is a single endpoint; of the others, there is an endpoint for each name."""
SECRETS = ("write_keys", "signature", "basic", "header")
SIZES = ("max_body", "max_pending", "min_free")
_OF_ORTTO = ("personal", "names", "decimals")
MB = 1 << 20
MOST_BODY = 64  # MB


@dataclass(frozen=True)
class Guard:
    """The secrets of an endpoint. A request must have one secret of each kind that is set; several allow rotation.

    `write_keys` are Segment's, `signatures` are the secrets of `X-Signature`, `basic` are texts `user:password`, and
    `headers` are names and values of headers.
    """

    write_keys: tuple[bytes, ...] = field(default=(), repr=False)
    signatures: tuple[bytes, ...] = field(default=(), repr=False)
    basic: tuple[bytes, ...] = field(default=(), repr=False)
    headers: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)

    def __bool__(self) -> bool:
        return bool(self.write_keys or self.signatures or self.basic or self.headers)


@dataclass(frozen=True)
class ReceiveSettings:
    """The settings of a receiver. Sizes are in bytes, times in seconds.

    The archive is in `folder`. At most `max_pending` may wait for the disk in each process, and `min_free` must stay
    free on the disk. `upload` is the URL to which published files are uploaded.
    """

    folder: str
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    metrics: tuple[str, int] | None = None
    upload: str | None = None
    rotate_seconds: float = 60
    rotate_bytes: int = 16 * MB
    max_body: int = 4 * MB
    max_pending: int = 64 * MB
    min_free: int = 256 * MB

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine can reach the receiver."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def receive_settings(folder: str, **options: Any) -> ReceiveSettings:
    """Returns the settings of a receiver: the options, and the sizes in `[receive]` of dlt's configuration.

    The sizes are `max_body_mb` (4, at most 64), `max_pending_mb` (64) and `min_free_mb` (256). Raises InvalidSetting if
    one is invalid.
    """
    sizes: dict[str, Any] = {}
    for name in SIZES:
        value: Any = dlt.config.get(f"{RECEIVE_SECTION}.{name}_mb")
        if value is None:
            continue
        try:
            number = -1 if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = -1
        if not 0 <= number < inf or (name == "max_body" and not 0 < number <= MOST_BODY):
            most = f"more than 0 and at most {MOST_BODY}" if name == "max_body" else "of at least 0"
            raise InvalidSetting(f"Expected a number {most} as {RECEIVE_SECTION}.{name}_mb, in MB, but got {value!r}.")
        sizes[name] = int(number * MB)
    return ReceiveSettings(folder, **sizes, **options)


def guard(kind: str, name: str = "") -> Guard:
    """Returns an endpoint's guard from dlt's configuration: `[receive.v1]`, `[receive.segment.NAME]`, ….

    A value may be a list. Raises InvalidSetting for a header that is not `NAME: VALUE` or has a blank name or value,
    and for basic without a colon or a password.
    """
    section = ".".join(filter(None, (RECEIVE_SECTION, kind, name)))
    values = {secret: _texts(f"{section}.{secret}") for secret in SECRETS}
    return Guard(
        write_keys=_encoded(values["write_keys"]),
        signatures=_encoded(values["signature"]),
        basic=_encoded(_basic(text, f"{section}.basic") for text in values["basic"]),
        headers=tuple(_header(text, f"{section}.header") for text in values["header"]),
    )


class OrttoEndpointSettings(NamedTuple):
    """How an endpoint of Ortto's treats activities; see `OrttoReceipt`."""

    names: OrttoNames
    personal: bool


@functools.lru_cache(maxsize=1000)
def ortto_settings(name: str) -> OrttoEndpointSettings:
    """Returns the settings of an endpoint of Ortto's, from dlt's configuration: `[receive.ortto.NAME]`.

    `personal` is true or false, `names` has names by ids, `decimals` lists ids. Raises InvalidSetting for other values.
    """
    section = f"{RECEIVE_SECTION}.ortto.{name}"
    personal: Any = dlt.config.get(f"{section}.personal")
    if str(personal).lower() not in ("true", "false", "none"):
        raise InvalidSetting(f"Expected true or false as {section}.personal, but got {personal!r}.")
    names: Any = _json(dlt.config.get(f"{section}.names"))
    if not isinstance(names, Mapping | None) or not all(isinstance(label, str) for label in (names or {}).values()):
        raise InvalidSetting(
            f'Expected names by ids as {section}.names, like "act:cm:bought" = "Bought", but got {_no_names(names)}.'
        )
    found = names_of_ids({str(id_): str(label) for id_, label in (names or {}).items()}, _texts(f"{section}.decimals"))
    return OrttoEndpointSettings(found, str(personal).lower() == "true")


def check_setting_names() -> None:
    """Raises InvalidSetting for an unknown name below `[receive]`, because a typo must not leave an endpoint open."""
    for kind, *rest in map(list, sorted(_configured())):
        if kind not in ENDPOINT_KINDS:
            if rest or kind not in (known := [f"{size}_mb" for size in SIZES]):
                raise _no_setting((), kind, ENDPOINT_KINDS if rest else known)
        elif kind == "v1" or len(rest) > 1:
            known = [*SECRETS, *(_OF_ORTTO if kind == "ortto" else ())]
            if rest and rest[-1] not in known:
                raise _no_setting((kind, *rest[:-1]), rest[-1], known)
        elif rest:
            raise _no_setting((kind,), rest[0], [f"NAME.{setting}" for setting in (*SECRETS, *_OF_ORTTO)])


def _no_setting(section: Iterable[str], name: str, known: Sequence[str]) -> InvalidSetting:
    path = ".".join((RECEIVE_SECTION, *section, name))
    return InvalidSetting(f"dlt's configuration has no setting {path}: {nearest(name, known)}")


def _configured() -> Iterator[tuple[str, ...]]:
    """Yields the paths of all settings below `receive`. Example: `("segment", "shop", "write_keys")`."""
    configured: list[Any] = [dlt.config.get(RECEIVE_SECTION), dlt.secrets.get(RECEIVE_SECTION)]
    for settings in configured:
        yield from _paths(settings)
    for variable in os.environ:
        head, *parts = variable.lower().split("__")
        if head == RECEIVE_SECTION and parts:
            yield tuple(parts)


def _paths(settings: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in settings.items() if isinstance(settings, Mapping) else ():
        below = (*path, str(name))
        is_section = isinstance(value, Mapping) and len(below) < (2 if below[0] == "v1" else 3)
        yield from _paths(value, below) if is_section else (below,)


def guarded_endpoints() -> list[str]:
    """Returns the sections below `receive` in dlt's configuration that have secrets, such as `segment.shop`."""
    secrets = (path for path in _configured() if path[0] in ENDPOINT_KINDS and path[-1] in SECRETS)
    return list(dict.fromkeys(".".join(section) for *section, _ in secrets if section))


def _texts(name: str) -> list[str]:
    value: Any = dlt.secrets.get(name)
    if value is None:
        value = dlt.config.get(name)
    if value is None:
        return []
    value = _json(value)
    texts = value if isinstance(value, list) else [value]
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            is_secret = name.rpartition(".")[2] in SECRETS
            what = "an empty text" if isinstance(text, str) else type(text).__name__ if is_secret else repr(text)
            raise InvalidSetting(f"Expected a text, or a list of texts, as {name}, but got {what}.")
    return texts


def _no_names(names: object) -> str:
    """Describes a value that is not a table of names by ids: the first name that is not text, or the value."""
    wrong = names.items() if isinstance(names, Mapping) else ()
    first = next((f"{id_!r} = {one!r}" for id_, one in wrong if not isinstance(one, str)), repr(names))
    return shortened(first, 200)


def _json(value: Any) -> Any:
    """Returns a setting; decodes it if it is a list or a table as JSON text, as in an environment variable."""
    if isinstance(value, str) and value.startswith(("[", "{")):
        with suppress(ValueError):
            return json.loads(value)
    return value


def _encoded(texts: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(text.encode() for text in texts)


def _parts(text: str, name: str, like: str) -> tuple[str, str]:
    """Returns the parts of a text before and after its colon."""
    head, colon, rest = text.partition(":")
    if not colon:
        raise InvalidSetting(f"Expected {name} to be like {like!r}, but it has no ':'.")
    return head, rest


def _basic(text: str, name: str) -> str:
    _, password = _parts(text, name, "user:password")
    # With a blank password, a secret that was never filled in, everyone who knows the user's name could send.
    if not password.strip():
        raise InvalidSetting(
            f"Expected {name} to be like 'user:password', but its password is blank. A secret that is sent as the user,"
            f" without a password, is set as {name.removesuffix('basic')}write_keys, without the colon."
        )
    return text


def _header(text: str, name: str) -> tuple[bytes, bytes]:
    header, value = _parts(text, name, "NAME: VALUE")
    # With a blank value, a secret that was never filled in, all requests without the header would match.
    if not (header.strip() and value.strip()):
        raise InvalidSetting(f"Expected {name} to be like 'NAME: VALUE', but its name or its value is blank.")
    return header.strip().lower().encode(), value.strip().encode()
