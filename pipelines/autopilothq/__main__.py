"""Runs the program `autopilothq` in a process of its own, also as `python -m autopilothq` if it is not on the PATH.

Ctrl-C ends the process by the signal itself, which shells report as status 130. It does so at once while Python imports
modules, where a traceback would help nobody, and while Python shuts down; otherwise after the command has ended.
"""

import os
import signal
import sys


def run_process() -> None:
    """Runs the program."""
    _open_streams()
    handler = signal.getsignal(signal.SIGINT)
    is_ours = handler is signal.default_int_handler  # the signal may be ignored, as in the background of a script
    if is_ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from . import cli

    try:
        if is_ours:
            signal.signal(signal.SIGINT, handler)
        cli.main()
    except (KeyboardInterrupt, SystemExit) as end:
        if is_ours:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if isinstance(end, KeyboardInterrupt) or end.code == cli.out.INTERRUPTED:
                cli.out.flush()
                _leave()
        raise
    finally:
        cli.out.flush()


def _open_streams() -> None:
    """Opens the standard streams that a scheduler closed. Otherwise the database's file would become one of them."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r", closefd=False))


def _leave() -> None:
    """Ends the process without Python's shutdown, which busy threads delay and half-imported libraries can crash."""
    import multiprocessing

    for child in multiprocessing.active_children():
        child.terminate()
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    run_process()
