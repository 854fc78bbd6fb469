"""httptools' parser, for which a request that offers another protocol is an ordinary one (RFC 9110, section 7.8).

Java's HTTP client offers HTTP/2 with each request (`Upgrade: h2c`). httptools takes what follows its head for that
protocol, so that the body would be lost. Instead such a head is read again, without the offer.
"""

from array import array
from typing import Protocol

import httptools


class Connection(Protocol):
    """What a parser tells of requests: `url` and `headers` are those of the last head, `parser` gets what comes."""

    parser: httptools.HttpRequestParser
    url: bytes
    headers: list[tuple[bytes, bytes]]


class RequestParser(httptools.HttpRequestParser):
    """A parser that calls `connection` twice for a head with an offer: as long as `is_offer` holds, it is read again.

    What comes from then on is for another parser, because this one may take the connection for closed.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._connection = connection
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does

    def feed_data(self, data: "bytes | bytearray | memoryview[int] | array[int]") -> None:
        """Parses some bytes. Raises HttpParserError, and HttpParserUpgrade for CONNECT."""
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not is_offer(self):
                raise
            self._connection.parser = RequestParser(self._connection)
            self._connection.parser.feed_data(self._head_without_offer() + bytes(data)[upgrade.args[0] :])

    def _head_without_offer(self) -> bytes:
        version = self.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.get_method(), self._connection.url, version)]
        lines += [b"%s: %s" % header for header in self._connection.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])


def is_offer(parser: httptools.HttpRequestParser) -> bool:
    """Returns whether the current request offers another protocol, and need not get it."""
    return bool(parser.should_upgrade() and parser.get_method() != b"CONNECT")
