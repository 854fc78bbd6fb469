"""sling loads an archive's lines into one table of DuckDB, flattened, merged by the message's id.

Usage: `python sling_merge.py ARCHIVE DATABASE`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path


def main(archive: str, database: str) -> None:
    subprocess.run(
        [
            *("sling", "run", "--src-stream", f"{Path(archive).resolve().as_uri()}/segment-logs/"),
            *("--src-options", json.dumps({"format": "jsonlines", "flatten": True})),
            *("--tgt-conn", "PEER", "--tgt-object", "main.messages"),
            *("--mode", "incremental", "--primary-key", "messageId"),
        ],
        env=os.environ | {"PEER": json.dumps({"type": "duckdb", "instance": str(Path(database).resolve())})},
        check=True,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
