"""An extension touches one place: `catalog.py` for data, a folder and a line for an origin.

Each test edits a copy of the package and runs it in a process of its own.
"""

import filecmp
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import autopilothq
import forked
from calling import MAIN
from contract.loading import message, write

PACKAGE = Path(autopilothq.__file__).parent
# Loads the sources of the arguments one after another; prints the destination's tables with columns in order and rows.
# The sources are Python expressions.
LOAD = """
import json, sys, dlt, duckdb
import autopilothq
pipeline = dlt.pipeline("copy", destination=dlt.destinations.duckdb("copy.duckdb"), dataset_name="autopilothq")
for made in sys.argv[1:]:
    pipeline.run(eval(made))
schema = pipeline.default_schema
with duckdb.connect("copy.duckdb") as connection:
    def rows(table):
        found = connection.execute(f'FROM autopilothq."{table}"')
        return [dict(zip([column[0] for column in found.description], row)) for row in found.fetchall()]
    tables = {
        table["name"]: {
            "description": table.get("description"),
            "columns": {name: [of["data_type"], of.get("description")] for name, of in table["columns"].items()},
            "order": [column[0] for column in connection.execute(f'DESCRIBE autopilothq."{table["name"]}"').fetchall()],
            "rows": rows(table["name"]),
        }
        for table in schema.data_tables()
    }
print(json.dumps(tables, default=str))
"""
# Forgets the package, because the process that this one is forked from has imported it.
OF_COPY = """
import sys
home = sys.argv.pop(1)
for name in [name for name in sys.modules if name.partition(".")[0] == "autopilothq"]:
    del sys.modules[name]
sys.path.insert(0, home)
sys.dont_write_bytecode = True
import autopilothq
assert autopilothq.__file__.startswith(home)
"""


class Copy:
    """A copy of the package that a test can edit."""

    def __init__(self, home: Path) -> None:
        self.package = home / "copy" / "autopilothq"
        shutil.copytree(PACKAGE, self.package)  # with compiled files, which Python uses if unedited

    def edit(self, name: str, before: str, after: str) -> None:
        path = self.package / name
        text = path.read_text()
        assert text.count(before) == 1, before
        path.write_text(text.replace(before, after))

    def run(self, code: str, *words: str) -> str:
        """Returns the output of a program that uses the copy."""
        done = forked.run("-c", OF_COPY + code, str(self.package.parent), *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def load(self, *made: str) -> dict[str, Any]:
        said = self.run(LOAD, *(made or ("autopilothq.archive('archive')",)))
        tables: dict[str, Any] = json.loads(said.splitlines()[-1])
        return tables

    def changed(self) -> set[str]:
        """Returns the files that differ from the package, except compiled ones."""
        paths = (path.relative_to(self.package) for path in self.package.rglob("*") if path.suffix != ".pyc")
        paths = (path for path in paths if (self.package / path).is_file())
        return {
            str(path)
            for path in paths
            if not (PACKAGE / path).exists() or not filecmp.cmp(PACKAGE / path, self.package / path, shallow=False)
        }


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def filled(table: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of a table without nulls, dlt's columns and times."""
    hidden = ("_dlt", "uuid_ts", "received_at", "timestamp", "anonymous_id")
    return [
        {name: cell for name, cell in row.items() if cell is not None and not name.startswith(hidden)}
        for row in table["rows"]
    ]


def test_a_property_and_an_event_are_lines_of_the_catalogue(copy: Copy) -> None:
    budget = 'Column("campaign_budget", "double", "The budget of the journey.", ("campaign_budget",)),\n    '
    name = 'Column("campaign_name", "text", "The name of the journey."'
    copy.edit("catalog.py", name, f"{budget}{name}")
    forwarded = 'EmailEvent("Email Forwarded", "The recipient forwarded the email."),\n    '
    copy.edit("catalog.py", 'EmailEvent("Email Opened"', f'{forwarded}EmailEvent("Email Opened"')
    write("1.ndjson", message("Email Forwarded", properties={"campaign_budget": 12.5, "colour": "red"}))

    tables = copy.load()

    made = tables["email_forwarded"]
    assert made["description"] == "Email Forwarded: The recipient forwarded the email."
    assert made["columns"]["campaign_budget"] == ["double", "The budget of the journey."]
    assert tables["email_opened"]["columns"]["campaign_budget"] == ["double", "The budget of the journey."]
    assert made["order"][:3] == ["id", "received_at", "uuid_ts"]
    assert made["order"][3:] == sorted(made["order"][3:])
    assert tables["tracks"]["order"].count("campaign_budget") == 0
    event = {"id": "m1", "user_id": "u1", "event": "email_forwarded", "event_text": "Email Forwarded"}
    assert filled(made) == [event | {"campaign_budget": 12.5, "colour": "red"}]
    assert filled(tables["tracks"]) == [event]

    shown = json.loads(copy.run(MAIN, "schema", "email_forwarded", "--format", "json"))["tables"]["email_forwarded"]
    assert shown["description"] == made["description"]
    shown_column = shown["columns"]["campaign_budget"]
    assert (shown_column["data_type"], shown_column["description"]) == ("double", "The budget of the journey.")
    assert list(shown["columns"]) == [name for name in made["order"] if name != "colour"]
    assert copy.changed() == {"catalog.py"}


def test_a_limit_is_a_line_of_the_catalogue(copy: Copy) -> None:
    copy.edit(
        "catalog.py",
        '    "mssql": Limits(1_024),',
        '    "duckdb": Limits(COLUMN_RESERVE + 30),\n    "mssql": Limits(1_024),',
    )
    write("1.ndjson", message("Order", properties={f"p{number:02}": number for number in range(30)}))

    tables = copy.load()

    stored = [name for name in tables["order"]["columns"] if name.startswith("p")]
    discarded = {row["column_name"]: row["reason"] for row in tables["_discards"]["rows"]}
    assert len(tables["order"]["columns"]) == 30
    assert sorted([*stored, *discarded]) == [f"p{number:02}" for number in range(30)]
    assert set(discarded.values()) == {"too_many_columns"}
    assert copy.changed() == {"catalog.py"}


ORIGIN = '''"""Greetings: an origin that is made up."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import dlt
from dlt.sources import DltResource

from ..origin import MESSAGE_RESOURCES, Batch, LoadContext, Origin, TableRows
from ..plan import LoadSettings
from ..records import make_batch, read_record
from ..resources import resources


class Card(NamedTuple):
    url: str
    version: str = "1"
    size: int = 0


class Greetings(Origin[Card]):
    tables = (*MESSAGE_RESOURCES, "coupons")
    reads_again = True

    def __init__(self, lines: Sequence[bytes]) -> None:
        self.lines = lines

    def plan(self, context: LoadContext) -> Sequence[Card]:
        return context.new([Card("card")])

    def read(self, work: Sequence[Card]) -> Iterator[Batch]:
        for index, _ in enumerate(work):
            yield make_batch(index, list(enumerate(self.lines, 1)), ended=True)

    def finish(self, context: LoadContext) -> Iterator[TableRows]:
        coupons = context.snapshot("coupons", context.loaded_at)
        coupons.add([read_record("coupons", b'{"coupon_id": "c1", "percent": 10}')])
        yield coupons.rows(context.existing_columns("coupons"))


@dlt.source(name="autopilothq", section="autopilothq", max_table_nesting=0)
def greetings(user: str = "u9") -> Iterable[DltResource]:
    message = {"type": "track", "event": "Greeting", "messageId": "g1", "userId": user, "timestamp": "2019-03-01"}
    return resources(Greetings([json.dumps(message).encode(), b"no message"]), LoadSettings())
'''
COUPONS = """COUPONS = Table(
    "coupons",
    "The coupons that greetings have now.",
    (Column("coupon_id", "text", "The coupon's id."), *SCANNED, Column("percent", "bigint", "What it takes off.")),
    key=("coupon_id",),
)
AUTOPILOT_CURRENT = (LISTS,"""


def test_an_origin_is_a_folder_and_a_line_and_its_table_is_in_the_catalogue(copy: Copy) -> None:
    folder = copy.package / "sources" / "greetings"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "source.py").write_text(ORIGIN)
    copy.edit(
        "__init__.py",
        '    ".sources.api.source": ("api",),\n',
        '    ".sources.api.source": ("api",),\n    ".sources.greetings.source": ("greetings",),\n',
    )
    copy.edit("catalog.py", "AUTOPILOT_CURRENT = (LISTS,", COUPONS)
    copy.edit("catalog.py", "CUSTOM_FIELDS, TRIGGERS)\n", "CUSTOM_FIELDS, TRIGGERS, COUPONS)\n")

    tables = copy.load(*["autopilothq.greetings()"] * 2)

    greeting = {"id": "g1", "user_id": "u9", "event": "greeting", "event_text": "Greeting"}
    assert filled(tables["greeting"]) == filled(tables["tracks"]) == [greeting]
    assert [(row["line"], row["reason"], row["raw"]) for row in tables["_rejects"]["rows"]] == [
        (2, "not_json", "no message")
    ]
    assert [(row["file"], row["stored"], row["rejected"]) for row in tables["_audit"]["rows"]] == [("card", 1, 1)]
    assert filled(tables["coupons"]) == [{"coupon_id": "c1", "percent": 10}]
    assert tables["coupons"]["order"] == ["coupon_id", "received_at", "uuid_ts", "percent"]
    assert tables["coupons"]["columns"]["percent"] == ["bigint", "What it takes off."]
    assert copy.changed() == {
        "__init__.py",
        "catalog.py",
        "sources/greetings/__init__.py",
        "sources/greetings/source.py",
    }
