"""Limits how many bytes requests keep in memory at once."""

import asyncio

ROOM_TIME = 3.0  # seconds that a request waits for room


class NoRoom(Exception):
    """The receiver cannot store messages now; the argument is the reason for the sender."""


class Room:
    """Room for `most` bytes. A single request may take more if no other has taken any."""

    def __init__(self, most: int) -> None:
        self.taken = 0
        self._most = most
        self._waiters: list[asyncio.Future[None]] = []

    async def take(self, size: int, refusal: str) -> None:
        """Takes room for `size` bytes; raises NoRoom with the text `refusal` if there is none within ROOM_TIME."""
        if not self._has(size):
            try:
                async with asyncio.timeout(ROOM_TIME):
                    while not self._has(size):
                        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                        self._waiters.append(waiter)
                        await waiter
            except TimeoutError:
                raise NoRoom(refusal) from None
        self.taken += size

    def give(self, size: int) -> None:
        """Gives room back."""
        self.taken -= size
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _has(self, size: int) -> bool:
        return not self.taken or self.taken + size <= self._most
