"""Runs the program `autopilothq` in a process of its own, also as `python -m autopilothq` if it is not on the PATH.

Ctrl-C ends the process by the signal itself, which shells report as status 130: while Python imports modules, where a
traceback would not help anybody; after a command has ended in an orderly way; and while Python shuts down.
"""

import signal


def run_process() -> None:
    """Runs the program."""
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


def _leave() -> None:
    """Ends the process without Python's shutdown, which busy threads delay and half-imported libraries can crash."""
    import multiprocessing

    for child in multiprocessing.active_children():
        child.terminate()
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    run_process()
