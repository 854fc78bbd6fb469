"""httptools' parser, but requests that offer another protocol are parsed as ordinary ones (RFC 9110, section 7.8).

Java's HTTP client offers HTTP/2 with each request (`Upgrade: h2c`). httptools assumes that the bytes after such a head
are of that protocol, so the body would be lost. Here the head is parsed again, without the offer.
"""

from array import array
from typing import Protocol

import httptools


class Connection(Protocol):
    """Receives a parser's callbacks; has the last head's `url` and `headers`, and the `parser` of the next bytes."""

    parser: httptools.HttpRequestParser
    url: bytes
    headers: list[tuple[bytes, bytes]]


class RequestParser(httptools.HttpRequestParser):
    """Parses requests for a `connection`; a head with an offer (see `is_offer`) is parsed, and reported, twice.

    A new parser parses it the second time and replaces this one, which may consider the connection closed.
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
    """Returns whether the current request offers another protocol, which the server may ignore."""
    return bool(parser.should_upgrade() and parser.get_method() != b"CONNECT")
