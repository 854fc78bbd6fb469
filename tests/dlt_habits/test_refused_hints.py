"""A load refuses hints and choices that would make the books wrong, before it writes anything."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import dlt
import pytest
from dlt.extract import DltSource
from dlt.extract.exceptions import ResourceExtractionError
from dlt.pipeline.exceptions import PipelineStepFailed
from pydantic import BaseModel

from autopilothq import archive
from autopilothq.errors import NotSupported
from autopilothq.sources import user_hints
from autopilothq.sources.api.source import api
from dlt_habits.habits import Target, more, track


class _Model(BaseModel):
    id: str


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "append": ({"write_disposition": "append"}, "Leave write_disposition out: what is stored stays"),
    "skip": ({"write_disposition": "skip"}, "Expected the write disposition merge or replace for tracks, but got skip"),
    "scd2": ({"write_disposition": {"disposition": "merge", "strategy": "scd2"}}, "Leave the strategy out"),
    "table": ({"table_name": "mine"}, "Expected the table name tracks for the resource tracks, but got 'mine'"),
    "key": ({"primary_key": "user_id"}, "Expected the primary key id for tracks, but got 'user_id'"),
    "merge key of a column": (
        {"columns": {"user_id": {"merge_key": True}}},
        "Expected the primary key id for tracks, but got merge_key for its column user_id: messages are unique by it",
    ),
    "key of a column": (
        {"columns": {"id": {"primary_key": True}, "user_id": {"primary_key": True}}},
        "Expected the primary key id for tracks, but got primary_key for its column user_id: messages are unique by it",
    ),
    "type": ({"columns": {"user_id": {"data_type": "bigint"}}}, "Expected the data type text for the column tracks.us"),
    "null": (
        {"columns": {"anonymous_id": {"nullable": False}}},
        "Expected a value in each row of tracks.anonymous_id, because its hints say nullable=False, but 5 of 16 rows",
    ),
    "absent": (
        {"columns": {"note": {"data_type": "text", "nullable": False}}},
        "Expected a value in each row of tracks.note, because its hints say nullable=False, but 16 of 16 rows",
    ),
    "deletion": (
        {"columns": {"user_id": {"hard_delete": True}}},
        "Expected no hint hard_delete for tracks.user_id: rows that it lets be deleted would count as stored.",
    ),
    "filter": (
        {"write_disposition": {"disposition": "merge", "source_filter": "user_id IS NOT NULL"}},
        "Expected no hint source_filter for tracks: it changes which rows are stored, and _audit would be wrong",
    ),
    "no deduplication": (  # an interrupted load stages rows twice
        {"write_disposition": {"disposition": "merge", "strategy": "delete-insert", "deduplicated": True}},
        "Expected no hint deduplicated for tracks: it changes which rows are stored, and _audit would be wrong",
    ),
    "strategy of the table": (
        {"additional_table_hints": {"x-merge-strategy": "scd2"}},
        "Expected no hint x-merge-strategy for tracks: it changes which rows are stored, and _audit would be wrong",
    ),
    "disposition of the table": (
        {"additional_table_hints": {"write_disposition": "append"}},
        "Expected no hint write_disposition for tracks: it changes which rows are stored, and _audit would be wrong",
    ),
    "another table format": (
        {"table_format": "delta", "additional_table_hints": {"table_format": "iceberg"}},
        "Expected no hint table_format for tracks: it changes which rows are stored, and _audit would be wrong",
    ),
    "format of the table": (
        {"additional_table_hints": {"table_format": "hive"}},
        "Expected no hint table_format for tracks: it changes which rows are stored, and _audit would be wrong",
    ),
    "model": ({"columns": _Model}, "Expected columns of tracks as a dict of hints"),
    "format": ({"file_format": "jsonl"}, "Expected the file format parquet for tracks, but got jsonl"),
}


@pytest.mark.parametrize("hint", REFUSED)
def test_a_hint_is_refused_before_a_write(source: Callable[..., DltSource], hint: str) -> None:
    words, said = REFUSED[hint]
    mine, target = source(), Target()
    mine.tracks.apply_hints(**words)
    with pytest.raises(PipelineStepFailed) as raised:
        target.run(mine)
    assert said in str(raised.value)
    assert (target.names(), target.pipeline.has_pending_data) == ([], False)


@pytest.mark.parametrize(
    "hint",
    ["table_name", "write_disposition", "primary_key", "merge_key", "columns", "table_format", "schema_contract"],
)
def test_a_function_as_a_hint_is_refused(source: Callable[..., DltSource], hint: str) -> None:
    """dlt accepts such hints for `other_events`, whose tables come with the rows; the books would not know of them."""
    mine = source()
    words: Any = {hint: lambda _: "replace"}
    mine.other_events.apply_hints(**words)
    with pytest.raises(ResourceExtractionError) as raised:
        list(mine)
    assert f"Expected the hint {hint} of other_events to be a value, but got a function of rows" in str(raised.value)


def test_other_names_are_refused(source: Callable[..., DltSource]) -> None:
    mine = source()
    mine.resources.add(mine.tracks.with_name("events"))
    with pytest.raises(PipelineStepFailed, match="Expected the resource tracks by its own name"):
        Target().run(mine)


def test_a_limit_of_a_source_that_keeps_marks() -> None:
    """The API is not asked, and nothing is written."""
    mine, target = api(api_key="key", base_url="http://127.0.0.1:9"), Target()
    mine.contacts.add_limit(1)
    with pytest.raises(PipelineStepFailed, match="Expected all rows of contacts to be taken, but it has a limit"):
        target.run(mine)
    assert target.names() == []


def test_users_need_identifies(source: Callable[..., DltSource]) -> None:
    with pytest.raises(PipelineStepFailed, match="Expected identifies among the selected resources"):
        Target().run(source().with_resources("users", "_audit"))


def test_a_duckdb_file_that_is_named_like_the_dataset(source: Callable[..., DltSource]) -> None:
    """dlt names the file after the pipeline. The load would fail, and every later run would retry its load package."""
    pipeline = dlt.pipeline("AutopilotHQ", destination="duckdb", dataset_name="autopilothq")
    with pytest.raises(PipelineStepFailed) as raised:
        pipeline.run(source())
    assert str(raised.value).endswith(
        f"The DuckDB file {Path('AutopilotHQ.duckdb').absolute()} is named like the dataset autopilothq, and DuckDB"
        ' cannot tell them apart.\nName another file (dlt.destinations.duckdb("other.duckdb")) or another dataset'
        ' (dataset_name="other").'
    )
    assert not pipeline.has_pending_data


def test_an_import_schema(folder: Path) -> None:
    """A user's changes in it take precedence over the catalogue; types and hints that cannot work are refused."""
    target = Target(import_schema_path="mine", export_schema_path="theirs")
    target.run(archive(more(folder, track("m1", "Email Opened", 1))))
    text = Path("theirs/autopilothq.schema.yaml").read_text()
    mine = Path("mine/autopilothq.schema.yaml")
    mine.write_text(text.replace("Every event, with", "OURS, with").replace("The contact's email address.", "Mail."))
    target.run(archive(more(folder, track("m2", "Email Opened", 2))))
    table = target.pipeline.default_schema.tables["tracks"]
    assert str(table["description"]).startswith("OURS, with")
    assert table["columns"]["context_traits_email"]["description"] == "Mail."
    assert target.count("tracks") == 2

    known = json.dumps(target.pipeline.default_schema.to_dict())
    for hint, value, said in (
        ("data_type", "bigint", r"Expected the data type text for tracks\.user_id in the import schema, but got big"),
        ("merge_key", True, "Expected the primary key id for tracks in the import schema, but got merge_key for its c"),
        ("hard_delete", True, r"Expected no hint hard_delete for tracks\.user_id: rows that it lets be deleted would "),
    ):
        schema = json.loads(known)
        schema["tables"]["tracks"]["columns"]["user_id"][hint] = value
        mine.write_text(json.dumps(schema))  # JSON is valid YAML
        with pytest.raises(PipelineStepFailed, match=said):
            target.run(archive(more(folder, track("m3", "Email Opened", 3))))
        assert target.count("tracks") == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, {"additional_table_hints": {"table_format": "delta", "x-databricks-table-comment": "Ours."}}),
        ("iceberg", {"additional_table_hints": {"table_format": "iceberg"}}),
        (None, {"write_disposition": {"disposition": "merge", "strategy": "delete-insert", "deduplicated": False}}),
    ],
)
def test_hints_that_change_no_rows(given: str | None, words: dict[str, Any]) -> None:
    """They are accepted, such as those of `databricks_adapter`, which always sets the table format."""
    mine = archive("nowhere", table_format=given).tracks
    mine.apply_hints(**words)
    user_hints.check_hints(mine)


def test_what_the_schema_has_of_other_tables_is_their_own(source: Callable[..., DltSource]) -> None:
    mine, key = source(), {"name": "no", "primary_key": True, "hard_delete": True}
    nested: Any = {"name": "mine__items", "parent": "mine", "columns": {"no": key}}
    other: Any = {"name": "mine", "resource": "mine", "columns": {"no": key}, "x-merge-source-filter": "no > 1"}
    for table in (other, nested):
        mine.schema.update_table(table)
    user_hints.check_schema_rows(mine.resources, mine.schema)


@pytest.mark.parametrize("hint", ["x-merge-source-filter", "x-stage-data-deduplicated", "x-merge-destination-scope"])
def test_a_schema_keeps_a_hint_until_it_is_unset(source: Callable[..., DltSource], hint: str) -> None:
    mine, table = source(), {"name": "tracks", "columns": {}, hint: "1 = 0"}
    mine.schema.update_table(cast(Any, table))
    with pytest.raises(NotSupported) as raised:
        user_hints.check_schema_rows(mine.resources, mine.schema)
    assert str(raised.value) == (
        f"Expected no hint {hint} for tracks: it changes which rows are stored, and _audit would be wrong about them.\n"
        "dlt's schema has it, perhaps from an earlier run. Set it to None there, or with apply_hints(...)."
    )
    mine.tracks.apply_hints(additional_table_hints={hint: None})
    user_hints.check_hints(mine.tracks)
    user_hints.check_schema_rows(mine.resources, mine.schema)


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        ("hard_delete", "Expected no hint hard_delete for shoe_bought.size: rows that it lets be deleted would count"),
        ("merge_key", "Expected the primary key id for shoe_bought in the schema, but got merge_key for its column s"),
    ],
)
def test_a_source_whose_schema_lets_rows_be_deleted(source: Callable[..., DltSource], hint: str, said: str) -> None:
    mine, target = source(), Target()
    column: Any = {"name": "size", hint: True}
    mine.schema.update_table({"name": "shoe_bought", "columns": {"size": column}})
    with pytest.raises(PipelineStepFailed) as raised:
        target.run(mine)
    assert said in str(raised.value)
    assert (target.names(), target.pipeline.has_pending_data) == ([], False)


def test_a_source_is_not_pickled(source: Callable[..., DltSource]) -> None:
    """Like any dlt source that holds functions, it has to be created where it runs: Python refuses to pickle it."""
    with pytest.raises(AttributeError, match="Can't pickle local object"):
        pickle.dumps(source())
