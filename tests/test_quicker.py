"""The shortcuts that tests take in dlt give the same results as dlt's own code."""

from threading import Thread
from typing import Any

import dlt
import pytest
import yaml
from dlt.common.configuration import resolve
from dlt.common.configuration.container import Container
from dlt.common.configuration.providers.environ import EnvironProvider
from dlt.common.normalizers.naming.snake_case import NamingConvention
from dlt.common.schema import utils
from dlt.extract import extract

from autopilothq import archive


def test_a_schema_has_the_hash_that_dlt_gives_it() -> None:
    schema: Any = archive("nowhere").schema.to_dict()
    schema["tables"] = archive("nowhere").discover_schema().to_dict()["tables"]
    quick = utils.generate_version_hash
    assert len(schema["tables"]) > 5
    assert quick(schema) == vars(quick)["__wrapped__"](schema)
    assert quick(schema | {"name": "other"}) != quick(schema)
    one: Any
    two: Any
    one, two = ({"version": 1, "tables": {"a": {"columns": dict.fromkeys(names)}}} for names in ("bc", "cb"))
    assert quick(one) != quick(two)  # the order of columns counts


@pytest.mark.parametrize("places", [("pipe", "section", ("sources", "a"), ("b",)), (None, None, ("sources", "a"), ())])
def test_a_setting_is_found_once_it_is_there(places: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = resolve.resolve_single_provider_value
    own = vars(look_up)["__wrapped__"]
    asked = (EnvironProvider(), "some_key", dlt.TSecretStrValue, *places)
    assert look_up(*asked) == own(*asked) == look_up(*asked)
    assert look_up(*asked)[0] is None
    for trace in look_up(*asked)[1]:
        with monkeypatch.context() as there:
            there.setenv(trace.key, "set")
            assert look_up(*asked) == own(*asked)
            assert look_up(*asked)[0] == "set"
    assert look_up(*asked)[0] is None


def test_a_name_is_as_long_as_its_naming_allows() -> None:
    for path in ("Users__Name", "a" * 90):
        for length in (None, 20, None):
            naming = NamingConvention(length)  # type: ignore[arg-type] # its default is None
            own = vars(type(naming).normalize_path)["__wrapped__"]
            assert naming.normalize_path(path) == own(naming, path)


def test_columns_are_written_into_traces_as_they_are() -> None:
    columns = {"b": {"name": "b", "data_type": "text"}, "a": {"name": "a", "x-of": [1, None, "\n"]}}
    for shown in (columns, {"a": columns["a"]}, columns):
        wanted = yaml.dump(shown, sort_keys=False)
        assert vars(extract)["yaml"].dump(shown, sort_keys=False) == wanted
    assert vars(extract)["yaml"].dump(columns, sort_keys=True) == yaml.dump(columns, sort_keys=True)


def test_columns_without_a_type_or_a_name_are_incomplete() -> None:
    columns = [{"name": "a", "data_type": "text"}, {"name": "b"}, {"name": "", "data_type": "text", "nullable": False}]
    table: Any = {"columns": dict(enumerate(columns))}
    own = vars(utils.find_incomplete_columns)["__wrapped__"]
    found = [*utils.find_incomplete_columns(table)]
    assert found == [(columns[1], True), (columns[2], False)] == [*own(table)]


def test_threads_of_a_pool_share_their_contexts() -> None:
    ids: list[int] = []
    for name in ("dlt-pool-7-1", "x-dlt-pool-8-1"):
        thread = Thread(target=lambda: ids.append(Container()._effective_thread_id()), name=name)
        thread.start()
        thread.join()
    assert ids[0] == 7 != ids[1] != 8
