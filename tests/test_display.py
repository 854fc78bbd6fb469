"""Nothing in strangers' texts acts on terminals, logs or generated formats, and the formats can be read back."""

import ast
import functools
import json
import re
import unicodedata
from pathlib import Path

import duckdb
import jinja2
import pytest
import sqlglot
import yaml

import autopilothq
from autopilothq.catalog import DELIVERIES
from autopilothq.cli import notes, out
from autopilothq.destination import audiences, opening
from autopilothq.display import json_text, shortened, visible, visible_lines, yaml_text
from autopilothq.errors import RunError
from autopilothq.inspect import FORMATS, ColumnInfo, TableInfo
from autopilothq.inspect.formats import grid
from calling import Call, Said
from contract.duck import held
from contract.loading import message
from fake_autopilot import FakeAutopilot
from sending import IMPATIENT, configure

# Unicode's control, format, surrogate and line characters are invisible, except these format characters for numbers.
SEEN = {0x600, 0x601, 0x602, 0x603, 0x604, 0x605, 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
ACTING = "\x1b[31m\x1b]0;title\x07\r\x08\x7f\x9b2J\x85"
ACTING += "\u202egpj\u2066\u200f\u061c\u200b\u200d\u2060\ufeff\u2028\u2029\U000e0041"
EVIL = f"evil\nForged: line{ACTING}|`a``b`<b>*[x](y)\"]{{}};'--%s,(c)\tz"
LONG = "long" * 1000
TABLE = f"{EVIL.lower()} table"


@functools.cache
def hidden() -> set[str]:
    """Returns all invisible characters; a function, because each worker imports all tests."""
    return {chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in CATEGORIES and code not in SEEN}


def assert_harmless(text: str) -> None:
    """Checks that nothing in the text acts on a terminal, and that no stranger's text starts a line."""
    assert not {sign for sign in text if sign in hidden() and sign != "\n"}
    assert not [line for line in text.split("\n") if line.lower().startswith("forged")]


# ---- the function --------------------------------------------------------------------------------------------------


def test_every_sign_that_is_not_seen_is_escaped() -> None:
    shown = visible("".join(sorted(hidden())))
    assert shown.isascii()
    assert shown.isprintable()
    assert visible("a\x1b[0m\n\u202eb\U000e0041\ud800") == r"a\x1b[0m\n\u202eb\U000e0041\ud800"
    fillers = "\u034f\u115f\u1160\u17b4\u180b\u3164\uffa0\ufe01\U000e0100"
    assert visible(fillers).isascii()


@pytest.mark.parametrize(
    "text", ["Zoë", "株式会社\u3000A", "❤\ufe0f", "אבג", "a\u0301", "😀", "50 %\u00a0x", "\\x1b", ""]
)
def test_what_is_seen_stays(text: str) -> None:
    assert visible(text) == text


def test_lines_stay_where_they_are_meant() -> None:
    assert visible_lines("a\nb\r\n\x0cc") == "a\nb\\r\n\\x0cc"


def test_long_text_is_cut() -> None:
    assert shortened("x" * 80) == "x" * 80
    assert shortened("x" * 81) == "x" * 79 + "…"
    assert len(shortened("\u202e" * 81)) == 80


@pytest.mark.parametrize("text", [EVIL, ACTING, "Zoë", "null", "\ud800", "- a: b", "=1+1", "😀\u200d😀"])
def test_json_and_yaml_read_back_the_same(text: str) -> None:
    value = {text: [text, 1, None, {"a": text}]}
    for written in (json_text(value), json_text(value, indent=2)):
        assert_harmless(written)
        assert json.loads(written) == value
    assert_harmless(yaml_text(value))
    assert yaml.safe_load(yaml_text(value)) == value


def test_a_grid_has_a_line_for_each_row() -> None:
    lines = grid([["name", "n", "text"], [EVIL, "1", EVIL], [LONG, "2", "x"]])
    assert len(lines) == 3
    assert_harmless("\n".join(lines))
    assert lines[0].index("n", 4) == lines[1].index("1", 80) == lines[2].index("2") == 82


def test_the_last_column_of_a_grid_keeps_to_the_terminal() -> None:
    rows = [["name", "text"], ["a", "one two three four five six"], ["b", "/a/long/path/that/stays/whole"]]
    assert grid(rows, width=30) == [
        "name  text",
        "a     one two three four five",
        "      six",
        "b     /a/long/path/that/stays/whole",
    ]
    assert grid(rows, width=29) == grid(rows)  # too little room for texts
    assert grid([["name", "text"], ["a", ""]], width=30) == ["name  text", "a"]


# The last parts of these names.
PRINTING = {"print", "print_exc", "print_exception", "print_stack", "echo", "secho", "echo_via_pager", "pprint"}
PRINTING |= {"stdout", "stderr", "__stdout__", "__stderr__", "write"}


def test_only_one_module_prints() -> None:
    """Any other module that prints would print a stranger's text unescaped."""
    root = Path(str(autopilothq.__file__)).parent
    found = set()
    for path in root.rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if PRINTING & set(re.findall(r"\w+", text)) else ():
            name = node.func if isinstance(node, ast.Call) else node
            if (name.attr if isinstance(name, ast.Attribute) else getattr(name, "id", "")) not in PRINTING:
                continue  # skips early, because to resolve all names takes a second
            named = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            is_attribute = isinstance(node, ast.Attribute)
            referred = ast.unparse(node) if is_attribute or isinstance(node, ast.Name) else ""
            if (
                re.search(r"(^|\.)print(_exc|_exception|_stack)?$", named)
                or referred in ("print", "sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__", "os.write")
                or re.search(r"(^|\.)(s?echo|echo_via_pager|pprint)$", referred)
            ):
                found.add((path.relative_to(root).as_posix(), referred or named))
    found.discard(("cli/log.py", "sys.stderr"))  # wrapped, not written to
    found.discard(("destination/lines.py", "os.write"))  # to its own pipe
    assert {path for path, _ in found} == {"cli/out.py"}


# ---- the formats ---------------------------------------------------------------------------------------------------


def evil_tables() -> list[TableInfo]:
    columns = [ColumnInfo(name, "text") for name in ("id", EVIL, LONG, "a b", "a.b", "1", "a|b", "`")]
    return [TableInfo(name, "", tuple(columns), ("id",)) for name in (EVIL, LONG, "a b", "a.b")]


@pytest.mark.parametrize("form", FORMATS)
def test_formats_hold_nothing_that_acts(form: str) -> None:
    assert_harmless(FORMATS[form](evil_tables(), EVIL))


def test_markdown_has_a_row_for_each_column_and_four_bars_in_each() -> None:
    tables = evil_tables()
    lines = FORMATS["markdown"](tables, EVIL).split("\n")
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == sum(2 + len(table.columns) for table in tables)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}
    assert sum(line.startswith("## ") for line in lines) == len(tables)
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", "\n".join(lines))
    assert not re.search(r"(?<!\\)[<>\[\]`*]", outside)


def test_mermaid_has_lines_of_its_grammar() -> None:
    tables = evil_tables()
    head, *lines = FORMATS["mermaid"](tables, EVIL).split("\n")
    assert head == "erDiagram"
    shapes = [r"    [A-Za-z_]\w*\{", r"    text [A-Za-z_]\w*( PK)?( \"[^\"]*\")?", r"\}"]
    kinds = [next((i for i, shape in enumerate(shapes) if re.fullmatch(shape, line, re.ASCII)), line) for line in lines]
    assert kinds == [0, *[1] * len(tables[0].columns), 2] * len(tables)
    entities = [line.strip(" {") for line in lines if line.endswith("{")]
    assert len(set(entities)) == len(tables)
    attributes = [line.split()[1] for line in lines[1 : 1 + len(tables[0].columns)]]
    assert len(set(attributes)) == len(attributes)


def test_mermaid_tells_what_a_renamed_column_is_called() -> None:
    described = ColumnInfo("a b", "text", 'A "b".'), ColumnInfo("a_b", "text", "As it is.")
    columns = *described, *(ColumnInfo(name, "text") for name in ("a.b", "", "1", "_1"))
    tables = [TableInfo("a-b", "", columns, ("a b", "_1")), TableInfo("a_b", "", described[1:])]
    assert (
        FORMATS["mermaid"](tables, "d")
        == """\
erDiagram
    a_b_2{
    text a_b_2 PK "a b: A 'b'."
    text a_b "As it is."
    text a_b_3 "a.b"
    text _
    text _1_2 "1"
    text _1 PK
}
    a_b{
    text a_b "As it is."
}"""
    )


def test_yaml_and_json_name_the_tables_as_they_are() -> None:
    tables = evil_tables()
    names = [table.name for table in tables]
    columns = [column.name for column in tables[0].columns]
    (source,) = yaml.safe_load(FORMATS["dbt"](tables, EVIL))["sources"]
    assert (source["name"], [table["name"] for table in source["tables"]]) == (EVIL, names)
    assert [column["name"] for column in source["tables"][0]["columns"]] == columns
    jinja = TableInfo("{{ env_var('SECRET') }}{% x %}{#", "", (ColumnInfo("{{{a}}}", "text", native="{{b}}"),))
    (source,) = yaml.safe_load(FORMATS["dbt"]([jinja], "d"))["sources"]
    (table,) = source["tables"]
    rendered = [jinja2.Template(text).render() for text in (table["name"], *table["columns"][0].values())]
    assert rendered == [jinja.name, "{{{a}}}", "{{b}}"]
    for read in (yaml.safe_load(FORMATS["yaml"](tables, "d")), json.loads(FORMATS["json"](tables, "d"))):
        assert [name for name in read["tables"] if not name.startswith("_dlt")] == names
        assert list(read["tables"][EVIL]["columns"]) == columns


# ---- every command -------------------------------------------------------------------------------------------------


def make() -> None:
    """Makes a dataset whose names and texts come from a stranger, and files with such names."""
    Path("archive").mkdir()
    lines = [
        json.dumps(message(EVIL, messageId="m1", properties={EVIL: EVIL})),
        f"no json{ACTING}",
        '{"type":"\\u001b"}',
    ]
    Path("archive", f"a{ACTING}\nForged.ndjson").write_text("\n".join(lines))
    Path("archive", f"b{ACTING}\nForged.gz").write_bytes(b"\x1f\x8b\x08\x00damaged")
    Path("archive", f"c{ACTING}\nForged.exe").write_bytes(b"x")


def more() -> None:
    """Adds another program's tables, and deliveries of a stranger's events."""
    quoted, enum = EVIL.replace('"', '""'), EVIL.replace("'", "''")
    values = {column.name: "NULL" for column in DELIVERIES.columns}
    for name in ("event", "email", "message_id", "message", "kind", "trigger_id"):
        values[name] = f"'{enum}'"
    values |= {"status": "'refused'", "sent_at": "now()"}
    types = {"bigint": "BIGINT", "timestamp": "TIMESTAMPTZ"}
    columns = ", ".join(f"{column.name} {types.get(column.type, 'VARCHAR')}" for column in DELIVERIES.columns)
    with duckdb.connect("autopilot.duckdb") as con:
        con.execute("USE autopilothq")
        con.execute(f"CREATE TABLE {DELIVERIES.name} ({columns})")
        con.execute(
            f"INSERT INTO {DELIVERIES.name} BY NAME SELECT {', '.join(f'{v} AS {k}' for k, v in values.items())}"
        )
        con.execute(
            f'CREATE TABLE "{quoted} table" (id VARCHAR, "{quoted}" VARCHAR, "{LONG}" INT, "a{{b}}c" INT,'
            f" kind ENUM('{enum}'), received_at TIMESTAMPTZ, uuid_ts TIMESTAMPTZ)"
        )
        con.execute(f'INSERT INTO "{quoted} table" (uuid_ts) VALUES (now())')
        con.execute(f"UPDATE _rejects SET reason = '{enum}'")
        con.execute(f"UPDATE _discards SET reason = 'too_many_keys', table_name = '{enum}'")
        con.execute(f'CREATE SCHEMA other; CREATE TABLE other."{quoted}" (a INT)')
        con.execute(f'CREATE TABLE other.tracks (id INT, "{quoted}" INT)')


COLUMNS = 'event AS "a\x1b\nForged\u202e" FROM _deliveries'
COMMANDS = [
    *(["schema", "--live", "--format", form] for form in (*FORMATS, "sql")),
    ["schema", "--live", TABLE],
    ["schema", TABLE[:-3]],
    ["schema", "--live", TABLE[:-3]],
    ["schema", "diff"],
    ["schema", "diff", "--against", "other"],
    ["status"],
    ["status", "--json"],
    ["status", "--max-age", "0s"],
    ["deliveries"],
    ["deliveries", "--status", EVIL],
    ["load", "archive", "archive", "--dataset", "again"],
    ["load", "archive", f"nowhere{ACTING}"],
    ["send", "messages", "archive", "--dry-run"],
    ["send", "messages", "send.ndjson"],
    ["send", "traits", "--dry-run", "--query", f"SELECT 'p1@example.com' AS email, {COLUMNS} LIMIT 1"],
    ["send", "traits", "--query", f"SELECT {COLUMNS}"],
    ["send", "audience", "All", "--query", f"SELECT 'x@y.z' AS email, {COLUMNS}"],
    ["send", "traits", "--query", f"SELECT {EVIL}"],
    ["forget", "--email", f"{ACTING}@example.com", "--archive", "archive", "--dry-run"],
    ["forget", "--email", f"{ACTING}@example.com", "--dry-run", "--json"],
    [EVIL],
]  # fmt: skip


def test_no_command_shows_what_acts(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "Autopilot", IMPATIENT)
    make()
    Path("send.ndjson").write_text(
        "\n".join(
            [
                json.dumps({"type": "identify", "messageId": "i", "traits": {"email": "a@b.c", EVIL: EVIL}}),
                json.dumps({"type": EVIL, "messageId": "x"}),
                json.dumps({"type": "track", "messageId": "t", "event": EVIL, "userId": EVIL}),
            ]
        )
    )
    with FakeAutopilot(contacts=2) as server:
        configure(monkeypatch, server)
        server.order("POST", "/contacts", status=400, message=EVIL, times=50)
        with held():
            first = call("load", "archive", "archive")
        assert "Not read" in first.err
        more()
        said: dict[tuple[str, ...], Said] = {("load",): first}
        for words in COMMANDS:
            said[tuple(words)] = call(*words)
            if words[0] == "send" or "nowhere" in words[-1]:
                said["json", *words] = call("--log-format", "json", *words)
    for called, answer in said.items():
        assert answer.out or answer.err, called
        assert_harmless(answer.out)
        assert_harmless(answer.err)
        if called[0] == "json":
            assert all(json.loads(line) for line in answer.err.splitlines()), called
    for command in (*COMMANDS[: len(FORMATS) + 2], ["status", "--json"], ["deliveries"]):
        assert said[tuple(command)].status == 0, said[tuple(command)].err
    assert visible(EVIL)[:20] in said["deliveries",].out
    assert max(map(len, said["schema", "diff", "--against", "other"].out.splitlines())) < 1000
    statements = said["schema", "--live", "--format", "sql"].out
    assert len(sqlglot.parse(statements, dialect="duckdb")) > 10
    with duckdb.connect() as con:
        con.execute(statements)
        tables = {name: columns for _, _, name, columns, *_ in con.execute("SHOW ALL TABLES").fetchall()}
    assert tables[visible(TABLE)] == [
        *("id", visible(EVIL.lower()), LONG, "a{b}c", "kind", "received_at", "uuid_ts"),
    ]
    assert TABLE in json.loads(said["schema", "--live", "--format", "json"].out)["tables"]


def test_control_characters_of_a_traceback_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError(f"a{ACTING}\nb")
    except ValueError as error:
        out.excepthook(type(error), error, error.__traceback__)
    told = capsys.readouterr().err
    assert_harmless(told)
    assert told.startswith("Traceback (most recent call last):\n")
    assert told.endswith(f"ValueError: a{visible(ACTING)}\nb\n")


def test_a_note_calls_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    posted: list[str] = []
    monkeypatch.setenv("RUNTIME__SLACK_INCOMING_HOOK", "https://example.com/hook")
    monkeypatch.setattr("autopilothq.clients.webhook.post_note", lambda _, text, **__: posted.append(text))
    notes.notify(["load", "archive"], "two lines\n<!channel> & <https://e.com|a>\x1b\u202e")
    assert posted[0].endswith("failed: two lines\n&lt;!channel&gt; &amp; &lt;https://e.com|a&gt;\\x1b\\u202e")


def test_errors_of_a_query_quote_in_one_line() -> None:
    for names, values in (([EVIL], []), (["email", EVIL, EVIL], []), (["email"], [(EVIL,), (EVIL,)])):
        with pytest.raises(RunError) as raised:
            audiences.PersonRows(names, values, "email")
        assert_harmless(str(raised.value))
        assert str(raised.value).count("\n") == 1
