"""Holds a DuckDB file open until its standard input ends: a program of the tests."""

import sys

import duckdb


def main() -> None:
    with duckdb.connect(sys.argv[1], read_only="read" in sys.argv[2:]):
        sys.stdout.write("open\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
