"""Loads into a DuckDB connection to which other databases are attached, with schemas and tables of the same names."""

from pathlib import Path

import dlt
import duckdb
from dlt import Schema

import autopilothq
from autopilothq.warehouses.dataset import dataset_of
from autopilothq.warehouses.dlt_internals.clients import client_for
from autopilothq.warehouses.duckdb import direct
from autopilothq.warehouses.hints import SOURCE
from contract.loading import message, write


def test_tables_of_other_attached_databases_are_not_the_datasets(tmp_path: Path) -> None:
    write("a.ndjson", message())
    with duckdb.connect() as con:
        con.execute(
            "ATTACH ':memory:' AS beside; CREATE SCHEMA beside.autopilothq; CREATE SCHEMA beside.books;"
            " CREATE TABLE beside.autopilothq.keyed (other VARCHAR PRIMARY KEY);"
            " CREATE TABLE beside.autopilothq.tracks (n INTEGER); CREATE TABLE beside.autopilothq._rejects (n INTEGER);"
            " CREATE TABLE beside.books._audit (n INTEGER); CREATE TABLE beside.books._dlt_version (n INTEGER);"
            " CREATE SCHEMA autopilothq; CREATE TABLE autopilothq.keyed (id VARCHAR PRIMARY KEY)"
        )
        pipeline = dlt.pipeline("p", str(tmp_path), destination=direct(con), dataset_name="autopilothq")
        with client_for(pipeline, Schema(SOURCE)) as client:
            dataset = dataset_of(client)
            assert {table: list(columns) for table, columns in dataset.columns().items()} == {"keyed": ["id"]}
            assert dataset.keys() == {"keyed": ("id",)}
        pipeline.run(autopilothq.archive("archive"))
        assert con.sql("SELECT count(*) FROM autopilothq.tracks").fetchall() == [(1,)]
        con.execute("DROP TABLE autopilothq._rejects")  # it is missing, though the other database has one
        write("b.ndjson", message(messageId="2"))
        pipeline.run(autopilothq.archive("archive"))
        assert con.sql("SELECT count(*) FROM autopilothq._rejects").fetchall() == [(0,)]
