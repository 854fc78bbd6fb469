"""Receives events that are pushed over HTTP, and leaves them as files of an archive that `load archive` reads.

The receiver shares nothing with the loader but these files. A request is answered as soon as its messages are on the
disk (docs/explanation/receiving.md).
"""

from .settings import Guard, ReceiveSettings, receive_settings

__all__ = ["Guard", "ReceiveSettings", "receive_settings"]
