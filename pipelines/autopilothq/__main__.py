"""The program `autopilothq` in a process of its own; also `python -m autopilothq`, where its script is not in the PATH.

Ctrl-C ends the process by its signal, which shells report as 130: while Python imports, when a traceback would tell
nobody anything; once a command has ended in an orderly way; and while Python ends.
"""

import signal


def run_process() -> None:
    """Runs the program."""
    meant = signal.getsignal(signal.SIGINT)
    is_ours = meant is signal.default_int_handler  # it may be ignored, as in the background of a script
    if is_ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from . import cli

    try:
        if is_ours:
            signal.signal(signal.SIGINT, meant)
        cli.main()
    except (KeyboardInterrupt, SystemExit) as end:
        if is_ours:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if isinstance(end, KeyboardInterrupt) or end.code == cli.out.INTERRUPTED:
                cli.out.flush()
                _leave()
        raise


def _leave() -> None:
    """Ends the process without Python's own end: threads at work would delay it, and half imported libraries crash."""
    import multiprocessing

    for child in multiprocessing.active_children():
        child.terminate()
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    run_process()
