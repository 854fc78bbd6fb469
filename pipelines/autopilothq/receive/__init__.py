"""Receives events that are pushed over HTTP, and writes them as files of an archive that `load archive` reads.

These files are all that the receiver shares with the loader. A request is answered as soon as its messages are on the
disk (docs/explanation/receiving.md).
"""

from .settings import Guard, ReceiveSettings, receive_settings

__all__ = ["Guard", "ReceiveSettings", "receive_settings"]
