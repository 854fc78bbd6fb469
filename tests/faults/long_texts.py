"""Long texts, and times at which messages were received, for the tests of memory."""

from datetime import timedelta

from contract.loading import NOW

LONG = 20_000  # characters


def long(of: object, characters: int = LONG) -> str:
    return f"{of} ".ljust(characters, "e")


def later(seconds: int) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat()
