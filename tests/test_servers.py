import json
from contextlib import closing
from pathlib import Path

import dlt
import fsspec
import psycopg2
import pyarrow as pa
import pytest
from dlt.common.runtime.run_context import active
from dlt.destinations import filesystem
from dlt.destinations import postgres as postgres_destination

from servers import S3, Postgres, postgres_server


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def test_dlt_merges_insert_only_into_postgres_through_adbc(postgres: str) -> None:
    @dlt.resource(
        name="opened",
        primary_key="id",
        write_disposition={"disposition": "merge", "strategy": "insert-only"},
        file_format="parquet",
    )
    def opened(values: list[str]) -> pa.Table:
        schema = pa.schema([pa.field("id", pa.string(), nullable=False), pa.field("value", pa.string())])
        yield pa.table({"id": ["a", "b", "c"], "value": values}, schema=schema)

    pipeline = dlt.pipeline("merging", destination=postgres_destination(postgres), dataset_name="house")
    pipeline.run(opened(["1", "2", "3"]))
    again = pipeline.run(opened(["4", "5", "6"]))

    assert rows(postgres, "SELECT id, value FROM house.opened ORDER BY id") == [("a", "1"), ("b", "2"), ("c", "3")]
    # Parquet files get into PostgreSQL only through ADBC.
    formats = {
        job.job_file_info.table_name: job.job_file_info.file_format
        for job in again.load_packages[0].jobs["completed_jobs"]
        if job.job_file_info.file_format != "sql"
    }
    assert formats["opened"] == "parquet"


def test_each_test_has_a_database_of_its_own(postgresql: Postgres) -> None:
    with postgresql.database() as first, postgresql.database() as second:
        assert first != second
        assert rows(second, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    with pytest.raises(psycopg2.OperationalError, match="does not exist"):
        rows(first, "SELECT 1")


def test_two_servers_run_side_by_side(postgresql: Postgres) -> None:
    with postgres_server() as other:
        assert other.port != postgresql.port
        assert rows(other.url("postgres"), "SHOW server_encoding") == [("UTF8",)]


def test_fsspec_writes_and_reads_s3(s3: S3) -> None:
    path = f"{s3.bucket()}/segment-logs/1.gz"
    with fsspec.open(path, "wt", compression="gzip", **s3.storage_options) as file:
        file.write(json.dumps({"event": "Email Opened"}))
    with fsspec.open(path, "rt", compression="gzip", **s3.storage_options) as file:
        assert json.load(file) == {"event": "Email Opened"}


def test_dlt_loads_into_s3(s3: S3) -> None:
    bucket = s3.bucket()
    destination = filesystem(bucket, credentials=s3.credentials)
    pipeline = dlt.pipeline("lake", destination=destination, dataset_name="house")
    pipeline.run(pa.table({"id": ["a"]}), table_name="opened", loader_file_format="parquet")
    files, _ = fsspec.url_to_fs(bucket, **s3.storage_options)
    assert len(files.glob(f"{bucket}/house/opened/*.parquet")) == 1


def test_dlt_sees_only_the_test(tmp_path: Path) -> None:
    context = active()
    Path(".dlt").mkdir()
    Path(".dlt/config.toml").write_text('[sources.one]\nname = "here"\n')
    assert context.runtime_config.dlthub_telemetry is False
    assert Path(context.data_dir).is_relative_to(tmp_path)
    assert Path(context.global_dir).is_relative_to(tmp_path)
    assert Path(context.run_dir).resolve() == Path.cwd()
    assert "sources.one.name" not in dlt.config  # settings are read when dlt's context is created, before the test
    context.reload()
    assert dlt.config["sources.one.name"] == "here"
