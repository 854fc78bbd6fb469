"""Misspelt settings of origins are errors, in a file and in the environment; other programs' settings are ignored."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable
from dlt.common.runtime.run_context import active
from dlt.sources import DltSource

from autopilothq import adopt, api, archive, ortto, profiles, source
from autopilothq.errors import BusyError, InvalidSetting
from autopilothq.receive.settings import ENDPOINT_KINDS
from autopilothq.warehouses.bigquery import bigquery
from autopilothq.warehouses.dlt_internals import PostgresCredentials, get_destination_client_initial_config
from autopilothq.warehouses.duckdb import direct
from autopilothq.warehouses.postgres import PostgresConfiguration, Waits, postgres
from autopilothq.warehouses.postgres_waits import LOCK_NOT_AVAILABLE, raising_busy, with_timeouts
from autopilothq.warehouses.resolve import DUCKDB_CONFIG, make_destination, resolve_target
from autopilothq.warehouses.settings import TargetOptions, check_top_level, configured_names
from calling import Call, errors
from faults.loads import line, track

SECTION = "SOURCES__AUTOPILOTHQ__"
ORIGINS: dict[str, Callable[[], Any]] = {
    "archive": lambda: archive("archive"),
    "adopt": lambda: adopt("tables"),
    "api": lambda: api(api_key="1"),
    "profiles": lambda: profiles(token="1", space="2", people="people.txt"),
    "ortto": lambda: ortto(api_key="1"),
}

MEMORY = "at least 20 and at most 1,000,000,000 as the setting memory,"
READ_TIMEOUT = "at least 0.001 and at most 1,000,000 as the setting read_timeout,"


@pytest.mark.parametrize(
    ("origin", "variable", "value", "error"),
    [
        ("archive", "MEMORY", "19", f"{MEMORY} but got 19"),
        ("adopt", "ADOPT__MEMORY", "1000000001", f"{MEMORY} but got 1"),
        ("archive", "MAX_EVENT_TABLES", "-3", "at least 0 as the setting max_event_tables, but got -3."),
        ("profiles", "MAX_EVENT_TABLES", "-1", "at least 0 as the setting max_event_tables, but got -1."),
        ("archive", "READ_TIMEOUT", "nan", f"{READ_TIMEOUT} but got nan"),
        ("archive", "READ_TIMEOUT", "inf", f"{READ_TIMEOUT} but got inf"),
        ("archive", "READ_TIMEOUT", "0", f"{READ_TIMEOUT} but got 0"),
        ("api", "API__MAX_SECONDS", "-1", "at least 0 as the setting max_seconds, but got -1.0."),
        ("ortto", "ORTTO__MAX_SECONDS", "nan", "at least 0 as the setting max_seconds, but got nan."),
        ("ortto", "ORTTO__SECONDS_PER_LOAD", "-1", "at least 0 as the setting seconds_per_load, but got -1.0."),
        ("profiles", "PROFILES__PEOPLE_PER_LOAD", "0", "at least 1 as the setting people_per_load, but got 0."),
        ("ortto", "ORTTO__PEOPLE_PER_LOAD", "-2", "at least 1 as the setting people_per_load, but got -2."),
    ],
)
def test_a_number_out_of_its_range_is_refused_with_the_range(
    monkeypatch: pytest.MonkeyPatch, origin: str, variable: str, value: str, error: str
) -> None:
    monkeypatch.setenv(f"{SECTION}{variable}", value)
    with pytest.raises(InvalidSetting) as raised:
        ORIGINS[origin]()
    assert str(raised.value).startswith(f"Expected a number of {error}")


def test_numbers_at_the_ends_of_their_ranges_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MEMORY", "20"), ("MAX_EVENT_TABLES", "0"), ("READ_TIMEOUT", "0.001")):
        monkeypatch.setenv(f"{SECTION}{name}", value)
    monkeypatch.setenv(f"{SECTION}ORTTO__MAX_SECONDS", "inf")
    assert [ORIGINS[name]().name for name in ("archive", "ortto")] == ["autopilothq", "autopilothq"]


def test_a_source_of_ones_own_refuses_numbers_out_of_their_ranges() -> None:
    origin: Any = None
    with pytest.raises(InvalidSetting, match="at least 0 as the setting max_event_tables, but got -3"):
        source(origin, max_event_tables=-3)


@pytest.mark.parametrize("name", ["lock_timeout", "statement_timeout"])
@pytest.mark.parametrize(("seconds", "called"), [(-1.0, "postgres"), (float("nan"), None), (1e30, "shop")])
def test_a_time_out_of_postgresql_that_no_server_can_count_is_refused(
    name: str, seconds: float, called: str | None
) -> None:
    config = PostgresConfiguration()
    config.destination_name = called
    config.waits, config.credentials = Waits(), PostgresCredentials("postgresql://ada:1@host/db")
    setattr(config, name, seconds)
    with pytest.raises(InvalidSetting) as raised:
        with_timeouts(config)
    expected = (
        f"Expected a number of at least 0 and at most 1,000,000 as destination.{called or 'postgres'}.{name}, but got"
        f" {seconds}."
    )
    assert str(raised.value) == expected


@pytest.mark.parametrize(("called", "section"), [(None, "destination.postgres"), ("shop", "destination.shop")])
def test_a_lock_that_came_too_late_names_the_section_of_its_destination(called: str | None, section: str) -> None:
    config = PostgresConfiguration()
    config.waits, config.destination_name = Waits(), called
    late = RuntimeError()
    vars(late)["pgcode"] = LOCK_NOT_AVAILABLE
    with pytest.raises(BusyError, match=rf"lock_timeout \(seconds\) under \[{section}\] of"), raising_busy(config):
        raise late


def test_a_text_for_the_seconds_of_ortto_is_refused_as_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{SECTION}ORTTO__MAX_SECONDS", "abc")
    with pytest.raises(InvalidSetting, match=r"^sources.autopilothq.ortto.max_seconds must be a number, got 'abc'$"):
        ORIGINS["ortto"]()


@pytest.mark.parametrize(
    ("origin", "variable", "error"),
    [
        ("ortto", "ORTTO__ACTIVITES", "ortto.activites: did you mean activities?"),
        ("adopt", "ADOPT__TABEL_URL", "adopt.tabel_url: did you mean tables_url?"),
        ("adopt", "ADOPT__TABELS__TRACKS", "adopt.tabels: did you mean tables?"),
        (
            "api",
            "API__X",
            (
                "api.x: there are api_key, base_url, requests_per_second, timeout, tries, allow_http, max_seconds,"
                " user_id_field, since, until, table_format, memory"
            ),
        ),
        ("profiles", "PROFILES__REGOIN", "profiles.regoin: did you mean region?"),
        ("archive", "EVNETS", "evnets: did you mean events?"),
        ("archive", "CREDENTAILS__AWS_ACCESS_KEY_ID", "credentails: did you mean credentials?"),
        ("ortto", "SUPRESSION_KEY", "supression_key: did you mean suppression_key?"),
        ("ortto", "ACTIVITES", "activites: did you mean activities?"),
    ],
)
def test_a_misspelt_setting_is_told_with_the_one_that_it_may_stand_for(
    monkeypatch: pytest.MonkeyPatch, origin: str, variable: str, error: str
) -> None:
    monkeypatch.setenv(f"{SECTION}{variable}", "1")
    with pytest.raises(InvalidSetting) as raised:
        ORIGINS[origin]()
    assert str(raised.value) == f"dlt's configuration has no setting sources.autopilothq.{error}"


@pytest.mark.parametrize("origin", ORIGINS)
def test_what_dlt_other_origins_and_other_sources_have_there_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, origin: str
) -> None:
    sections = {"archive": SECTION, **{name: f"{SECTION}{name.upper()}__" for name in ORIGINS if name != "archive"}}
    dlts = (f"{sections[origin]}{name}" for name in ("DATA_WRITER__BUFFER_MAX_ITEMS", "EXTRACT__WORKERS"))
    others = ("SOURCES__SHOP__URL", f"{SECTION}MY_HOOK_URL", f"{SECTION}WEBHOOK__URL")
    of_origins = ("NOTIFY", "SUPPRESSION_KEY", "PROFILES__TOKEN", "ADOPT__TABLES__X", "CREDENTIALS__KEY")
    for name in (*dlts, *others, *(f"{SECTION}{name}" for name in of_origins)):
        monkeypatch.setenv(name, "1")
    assert isinstance(ORIGINS[origin](), DltSource)


def test_the_commands_name_a_setting_that_is_no_number(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{SECTION}ORTTO__TRIES", "many")
    monkeypatch.setenv(f"{SECTION}ORTTO__API_KEY", "1")
    monkeypatch.setenv("DESTINATION__SEGMENT__ALLOW_HTTP", "perhaps")
    monkeypatch.setenv("DESTINATION__SEGMENT__WRITE_KEY", "1")
    where = "Correct it in .dlt/config.toml, in .dlt/secrets.toml or in the environment, in the variable whose name"
    said = call("load", "ortto")
    error = "Error: Expected a whole number as the setting tries, but got 'many'."
    assert (said.status, errors(said)) == (1, [error, f"{where} ends in TRIES."])
    said = call("forward", "archive")
    error = "Error: Expected true or false as the setting allow_http, but got 'perhaps'."
    assert (said.status, errors(said)) == (1, [error, f"{where} ends in ALLOW_HTTP."])


def test_the_command_names_a_misspelt_setting_of_a_file(call: Call) -> None:
    Path(".dlt").mkdir()
    Path(".dlt/config.toml").write_text(
        '[sources.autopilothq.ortto]\nregoin = "eu"\n[sources.autopilothq.ortto.data_writer]\nbuffer_max_items = 7\n'
    )
    Path(".dlt/secrets.toml").write_text('[sources.autopilothq.ortto]\napi_key = "1"\n')
    active().reload()
    said = call("load", "ortto")
    error = "dlt's configuration has no setting sources.autopilothq.ortto.regoin: did you mean region?"
    assert (said.status, errors(said)) == (1, [f"Error: {error}"])


def test_mapping_names_a_misspelt_setting(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__MAPING", "1")
    said = call("mapping", "nowhere")
    error = "dlt's configuration has no setting sources.autopilothq.maping: did you mean mapping?"
    assert (said.status, errors(said)) == (1, [f"Error: {error}"])


def test_a_name_with_a_value_anywhere_is_that_of_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("A", "BELOW__X", "A_THEN__X", "A_THEN", "A_BEFORE", "A_BEFORE__X", "IN_FILE__X", "HERE"):
        monkeypatch.setenv(f"ROOM__PART__{name}", "1")
    monkeypatch.setenv("ROOM__PARTS__Z", "1")
    Path(".dlt").mkdir()
    Path(".dlt/secrets.toml").write_text("[room.part]\nin_file = 1\nsecret = 1\npublic.x = 1\ntable.x = 1\n")
    Path(".dlt/config.toml").write_text("[room.part]\nhere.x = 1\nsecret.x = 1\npublic = 1\ntable.x = 1\n")
    active().reload()
    tables = configured_names("room.part")
    assert tables == {
        **dict.fromkeys(("a", "a_then", "a_before", "in_file", "here", "secret", "public"), False),
        **dict.fromkeys(("below", "table"), True),
    }
    assert configured_names("room.none") == {}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('datasetname = "mail"', "setting datasetname: did you mean dataset_name?"),
        ('DATASET_NAME = "mail"', "setting DATASET_NAME: did you mean dataset_name?"),
        ('destination_tpye = "postgres"', "setting destination_tpye: did you mean destination_type?"),
        ('book_dataset = "books"', "setting book_dataset: did you mean books_dataset?"),
        ('source.autopilothq.archive_url = "a"', "section source: did you mean sources?"),
        ('[destinations.segment]\nwrite_key = "1"', "section destinations: did you mean destination?"),
        *((f'[recieve.{kind}]\nbasic = "a:b"', "section recieve: did you mean receive?") for kind in ENDPOINT_KINDS),
    ],
)
def test_the_commands_name_what_is_misspelt_outside_of_sections(call: Call, text: str, error: str) -> None:
    Path(".dlt").mkdir()
    Path(".dlt/secrets.toml").write_text(text)
    active().reload()
    said = call("status")
    assert (said.status, errors(said)) == (1, [f"Error: dlt's configuration has no {error}"])


def test_what_others_have_outside_of_sections_is_left_alone() -> None:
    dlts = 'destination_name = "warehouse"\ndataset_name_layout = "x_%s"\ndataset_name = "mail"\n'
    others = 'database_name = "shop"\ndatasets = "a"\ndataset_name_2 = "b"\ndestination_types = ["a"]\n'
    others += "[destinations.shop]\na = 1\n[receiver.sources.shop]\nb = 2\n"
    Path(".dlt").mkdir()
    Path(".dlt/config.toml").write_text(f"{dlts}{others}[source]\nautopilot = 3\n")
    active().reload()
    check_top_level()


@pytest.mark.parametrize(("kind", "own"), [("duckdb", direct), ("postgres", postgres), ("bigquery", bigquery)])
def test_a_destination_under_a_name_of_ones_own_is_of_this_project(
    monkeypatch: pytest.MonkeyPatch, kind: str, own: type[Any]
) -> None:
    """Like destinations under dlt's names; dlt's own classes would load differently or not at all."""
    monkeypatch.setenv("DESTINATION__WAREHOUSE__DESTINATION_TYPE", kind)
    made, _ = make_destination(TargetOptions("warehouse"))
    assert (type(made), made.destination_name) == (own, "warehouse")


def test_dlts_settings_of_a_duckdb_file(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    """They work also in variables, which hold only text."""
    Path(".dlt").mkdir()
    toml = '[destination.duckdb.credentials]\nextensions = ["json"]\n[destination.duckdb.credentials.global_config]\n'
    Path(".dlt/config.toml").write_text(f'{toml}memory_limit = "300MB"\n')
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS__STATEMENTS", '["CREATE TEMP TABLE made AS SELECT 7 AS it"]')
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS__LOCAL_CONFIG", '{"errors_as_json": true}')
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS__PRAGMAS", '["disable_optimizer"]')
    active().reload()
    made, name = make_destination(TargetOptions("duckdb"))
    given = made.configuration(get_destination_client_initial_config(made, name)).credentials
    assert (given.extensions, given.pragmas, given.local_config) == (
        ["json"],
        ["disable_optimizer"],
        {"errors_as_json": True},
    )
    assert given.statements == ["CREATE TEMP TABLE made AS SELECT 7 AS it"]
    assert given.global_config == DUCKDB_CONFIG | {"memory_limit": "300MB"}
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS__STATEMENTS", "CREATE SECRET (TYPE s3, KEY_ID '7')")
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS__EXTENSIONS", '["nosuch"]')
    duckdb.connect("autopilot.duckdb").close()
    assert errors(call("status"))[0] == "Error: destination.duckdb.credentials.statements must be a list"
    monkeypatch.delenv("DESTINATION__DUCKDB__CREDENTIALS__STATEMENTS")
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS__LOCAL_CONFIG", '{"s3_secret_access_key": "7"')
    assert errors(call("status"))[0] == "Error: destination.duckdb.credentials.local_config must be a table"
    monkeypatch.delenv("DESTINATION__DUCKDB__CREDENTIALS__LOCAL_CONFIG")
    said = errors(call("status"))
    assert re.fullmatch('Error: IO Error: Extension ".*nosuch.*" not found.', said[0])
    assert said[1].startswith("DuckDB downloads each extension once.")


def test_a_lake_and_a_file_under_names_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("a.ndjson").write_bytes(line(track(1)))
    for name, kind, setting in (
        ("PLACE", "filesystem", "BUCKET_URL"),
        ("FILE", "dlt.destinations.duckdb", "CREDENTIALS"),
    ):
        monkeypatch.setenv(f"DESTINATION__{name}__DESTINATION_TYPE", kind)
        monkeypatch.setenv(f"DESTINATION__{name}__{setting}", f"~/{name}")
    monkeypatch.setenv("SOURCES__AUTOPILOTHQ__TABLE_FORMAT", "delta")
    assert call("load", "archive", "a.ndjson", "--destination", "place").status == 0
    assert DeltaTable(f"{tmp_path}/PLACE/autopilothq/tracks").to_pyarrow_table()["id"].to_pylist() == ["m-1"]
    assert resolve_target(TargetOptions("file")).database == f"{tmp_path}/FILE"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("dataset_name = 2019", "dataset_name must be a text, got 2019"),
        ("[dataset_name]\nmail = 1", "dataset_name must be a text, got {'mail': 1}"),
        ("books_dataset = true", "books_dataset must be a text, got True"),
        ('destination_type = ["duckdb"]', "destination_type must be a text, got ['duckdb']"),
    ],
)
def test_the_target_has_names_of_text(call: Call, text: str, error: str) -> None:
    Path(".dlt").mkdir()
    Path(".dlt/config.toml").write_text(text)
    active().reload()
    said = call("status")
    assert (said.status, errors(said)) == (1, [f"Error: {error}"])
