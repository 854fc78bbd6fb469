"""Loads an archive while no file may grow beyond a size, as on a full disk: a program of the tests."""

import resource
import signal
import sys
from pathlib import Path

import autopilothq
from faults.loads import pipeline


def main() -> None:
    archive, folder, room = sys.argv[1:]
    into = pipeline(Path(folder))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing more is then an error, and does not kill the process
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(room), int(room)))
    into.run(autopilothq.archive(archive))


if __name__ == "__main__":
    main()
