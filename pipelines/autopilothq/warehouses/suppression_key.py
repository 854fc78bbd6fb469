"""The key of the suppression list: a secret outside the dataset, without which nobody can test a guessed id.

Each hash is stored with its salt, so without a key anybody who reads the list can test whether a person is on it.
Hashes that are made with a key (HMAC-SHA256) are marked in their salt, `hmac-sha256:RANDOM:CHECK`. CHECK identifies the
key, so that a wrong key raises an error instead of matching nobody. A list may have hashes of both kinds.
"""

import hmac
from collections.abc import Iterable
from secrets import token_hex
from typing import Any

import dlt

from ..errors import SuppressionKeyError
from ..segment.identity import KEYED, HashedIds, SuppressionKey

SETTING = "sources.autopilothq.suppression_key"
SHORTEST = 16  # characters; a shorter key could be guessed as well
_ENV = SETTING.upper().replace(".", "__")


def configured() -> SuppressionKey | None:
    """Returns the key from dlt's secrets, None if it is not set. Raises SuppressionKeyError if it is too short."""
    value: Any = dlt.secrets.get(SETTING)  # from dlt.config it would end up in dlt's traces
    if value is None:
        return None
    found = str(value)
    if len(found) < SHORTEST:
        raise SuppressionKeyError(
            f"Expected a key of at least {SHORTEST} characters, but the setting {SETTING} has {len(found)}.\n"
            "Make a random one: openssl rand -hex 32"
        )
    return SuppressionKey(found.encode())


def hashes(pairs: Iterable[tuple[str, str]]) -> HashedIds:
    """Returns the hashed ids of deleted persons, from the list's pairs of salt and hash and the configured key.

    Raises SuppressionKeyError if some hashes were made with a key other than the configured one.
    """
    key = configured()
    known = HashedIds(pairs, key)
    keyed = {salt for salt, _ in known.pairs() if salt.startswith(KEYED)}
    if keyed and key is None:
        raise SuppressionKeyError(
            f"The suppression list was made with a key, but there is none in the setting {SETTING}: without it the"
            f" messages of deleted persons would come back.\nSet it in .dlt/secrets.toml, or {_ENV} in the environment."
        )
    if key is not None and not all(_is_of(salt, key) for salt in keyed):
        raise SuppressionKeyError(
            f"The suppression list was made with another key than the one in the setting {SETTING}: with this one the"
            " messages of deleted persons would come back.\nSet the key that the list was made with."
        )
    return known


def new_salt(key: SuppressionKey | None) -> str:
    """Returns a random salt, which shows whether its hash is made with a key, and with which one."""
    random = token_hex(16)
    return f"{KEYED}{random}:{_check(random, key)}" if key else random


def _is_of(salt: str, key: SuppressionKey) -> bool:
    random, _, check = salt.removeprefix(KEYED).partition(":")
    return hmac.compare_digest(check.encode(), _check(random, key).encode())


def _check(random: str, key: SuppressionKey) -> str:
    return hmac.digest(key.secret, f"check\n{random}".encode(), "sha256").hex()[:16]
