"""Finds the messages and texts of deleted persons, in whole batches, with the engine.

The suppression list has the hashes of deleted persons' ids: a table `suppressed_hashes` (`salt`, `hash`). Only distinct
ids are hashed, because there are fewer of them than messages. Ids that are also known in plain text are in
`searched_ids` (`kind`, `value`), which is empty while a load runs.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence

import duckdb
import pyarrow as pa

from ..catalog import PERSON_COLUMNS, PERSON_KEYS
from ..segment.identity import KEYED, Id, SuppressionKey, fold, fold_email, lower_email
from ..segment.message import EXTRA
from . import engine
from .mentions import contains_email, decode_letter_escapes, searchable, unescape

TEXTS_AT_ONCE = 4096
BLOCK = 64  # bytes that SHA-256 takes at a time
NULS = ("\0", "\\x00")  # the NUL between the letters of UTF-16, as it is and as `_rejects` has it
_SQL = engine.queries("suppression.sql")

# A key and its value: in JSON, in broken JSON, and in `key=value`.
_VALUE = r"""("(?:[^"\\]|\\(?s:.))*|'[^']*|[^\s"',\[\]{}&;]+)"""
_PERSON_KEY = rf"""(?i)((?:{"|".join(PERSON_KEYS)})[_ -]?id)["']?\s*[:=]\s*{_VALUE}"""
_ANY_KEY = rf"""(?i)"([^"]*id[^a-z0-9"]*)"\s*:\s*{_VALUE}"""
# Only the end of a key counts: `context_traits_contact_id` holds a contact's id.
_KINDS = ", ".join(f"('{word}', '{kind}')" for word, kinds in PERSON_KEYS.items() for kind in kinds)
_ANY_KIND = "('', 'user_id'), ('', 'anonymous_id'), ('', 'contact_id')"
_MENTIONS, _SUSPECTS = (
    f"{_SQL['emails']} UNION ALL {_SQL['keyed'].format(pattern=engine.literal(pattern), kinds=kinds)}"
    for pattern, kinds in ((_PERSON_KEY, _KINDS), (_ANY_KEY, _ANY_KIND))
)


def register_suppressed(
    con: duckdb.DuckDBPyConnection,
    pairs: Iterable[tuple[str, str]],
    key: SuppressionKey | None = None,
    sought: Collection[Id] = (),
) -> None:
    """Creates the tables that all other functions of this module read.

    `pairs` are the salts and hashes of the suppression list, `key` is the key of the hashes that were made with one,
    and `sought` are the ids that are known in plain text.
    """
    _define_functions(con)
    listed = list(pairs)
    table = pa.table({"salt": [salt for salt, _ in listed], "hash": [hash_ for _, hash_ in listed]})
    with engine.registered(con, pairs=table):
        con.execute(_SQL["suppressed_hashes"])
    con.execute(_SQL["salts"], {**_key_blocks(key), "mark": KEYED})
    con.execute(_SQL["searched_ids"])
    if sought:
        con.executemany("INSERT INTO searched_ids VALUES (?, ?, ?)", [(*id_, fold(id_.value)) for id_ in sought])


def _key_blocks(key: SuppressionKey | None) -> dict[str, bytes | None]:
    """Returns the blocks with which HMAC-SHA256 (RFC 2104) begins its two hashes: the key, XORed with a constant."""
    if key is None:
        return {"inside": None, "outside": None}
    block = hashlib.sha256(key.secret).digest() if len(key.secret) > BLOCK else key.secret
    block = block.ljust(BLOCK, b"\0")
    return {"inside": bytes(byte ^ 0x36 for byte in block), "outside": bytes(byte ^ 0x5C for byte in block)}


def _define_functions(con: duckdb.DuckDBPyConnection) -> None:
    """Registers the functions of `segment.identity` in the engine, so that ids are compared by one rule everywhere."""
    try:
        con.execute("SELECT py_fold_email('')")  # ten times as fast as looking the function up in the catalogue
    except duckdb.CatalogException:
        pass
    else:
        return
    functions: dict[str, Callable[[str], str]] = {
        "py_fold_email": fold_email,
        "py_lower_email": lower_email,
        "py_searchable": searchable,
        "py_unescaped": unescape,
    }
    for name, function in functions.items():
        con.create_function(name, _vectorised(function), ["VARCHAR"], "VARCHAR", type="arrow")  # type: ignore[call-overload]
    con.execute(engine.script("suppression_macros.sql"))


def _vectorised(function: Callable[[str], str]) -> Callable[[pa.ChunkedArray], pa.Array]:
    def applied(texts: pa.ChunkedArray) -> pa.Array:
        return pa.array([text if text is None else function(text) for text in texts.to_pylist()], pa.string())

    return applied


def suppress(con: duckdb.DuckDBPyConnection) -> int:
    """Fills the table `suppressed` with the `seq` of the `messages` of deleted persons; returns how many there are.

    Values of columns that the catalogue does not know are in columns of `messages` or in rows of `extras`.
    """
    con.execute(_SQL["suppressed"])
    cells = set(con.sql("FROM messages LIMIT 0").columns)
    for column, kinds in PERSON_COLUMNS.items():
        for cell in cells.intersection((column, EXTRA + column)):
            name = engine.name(cell)
            text = f"as_text({name})" if cell.startswith(EXTRA) else name
            if _find_ids(con, f"SELECT DISTINCT {text} AS id FROM messages WHERE {name} IS NOT NULL", kinds):
                con.execute(_SQL["suppress_column"].format(text=text))
        rows = f'(SELECT seq, as_text(value) AS id FROM extras WHERE "column" = {engine.literal(column)})'
        if _find_ids(con, f"SELECT DISTINCT id FROM {rows} SEMI JOIN messages USING (seq)", kinds):
            con.execute(_SQL["suppress_rows"].format(rows=rows))
    con.execute(_SQL["suppressed_once"])
    return engine.count(con, "suppressed")


def _find_ids(con: duckdb.DuckDBPyConnection, ids: str, kinds: Sequence[str]) -> int:
    """Creates the table `suppressed_ids` of those ids of a query that are on the list; returns how many there are."""
    con.execute(f"CREATE OR REPLACE TEMP TABLE ids AS {ids}")
    found = ids_on_list(ids_of("ids", kinds))
    con.execute(f"CREATE OR REPLACE TEMP TABLE suppressed_ids AS SELECT DISTINCT id FROM ({found})")
    return engine.count(con, "suppressed_ids")


def people_on_list(ids: str) -> str:
    """Returns a query of the rows of `ids` whose `person` is on the suppression list.

    A person is an id with its kind in front: `email:…`.
    """
    return ids_on_list(ids_of(f"(SELECT person, person AS id FROM {ids})", ["tagged"]))


def ids_of(texts: str, kinds: Collection[str]) -> str:
    """Returns a query that brings the ids in the column `id` of `texts`, which has these kinds, into comparable form.

    The query has all columns of `texts`, `raw` (the id as it is written), and `kind` and `value` as `identity.id_of`
    makes them.
    """
    has_emails = "email" in kinds
    return " UNION ALL ".join(_ids_of_kind(texts, kind, has_emails) for kind in kinds)


def _ids_of_kind(texts: str, kind: str, has_emails: bool) -> str:
    if kind == "tagged":
        return _SQL["tagged_ids"].format(texts=texts)
    # An id with an @ is an email, unless its column can hold only contact ids.
    tests = {"email": "contains(id, '@')"} | ({} if has_emails else {"contact_id": "id <> ''"})
    test = tests.get(kind, "NOT contains(id, '@')")
    value = "fold_email(id)" if kind == "email" else "id"
    return f"SELECT *, id AS raw, '{kind}' AS kind, {value} AS value FROM {texts} WHERE {test}"


def ids_on_list(ids: str) -> str:
    """Returns a query of those `ids` (a query with the columns `raw`, `kind` and `value`) that are on the list.

    Emails are also looked up in the form that earlier releases hashed.
    """
    earlier = "REPLACE (py_lower_email(raw) AS value) FROM sent WHERE kind = 'email' AND NOT is_plain(raw)"
    found = _SQL["on_list"].format(ids=f"FROM sent UNION ALL SELECT * {earlier}")
    return f"WITH sent AS MATERIALIZED ({ids}) {found}"


def find_mentions(con: duckdb.DuckDBPyConnection, keys: pa.Array, texts: pa.Array) -> list[int]:
    """Returns the `keys` of the texts that mention deleted persons: by an email anywhere, or by another id as a value.

    Such a value follows a key that ends with `userId`, `contact_id` and so on. Texts need be neither JSON nor UTF-8.
    """
    table = decode_letter_escapes(keys, texts, NULS)
    found = _keys_on_list(con, table, _MENTIONS)
    emails = [value for (value,) in con.execute("SELECT value FROM searched_ids WHERE kind = 'email'").fetchall()]
    if emails:
        for key, text in _holding(con, table, "kind = 'email'"):
            if any(contains_email(text, email) for email in emails):
                found.add(key)
    return sorted(found)


def find_suspects(con: duckdb.DuckDBPyConnection, keys: pa.Array, texts: pa.Array, by_hash: bool) -> list[int]:
    """Returns the `keys` of all lines that may be messages of deleted persons; the caller must parse them to be sure.

    In such a message, one value is an id of the person. Ids that are known in plain text are searched for anywhere in
    the line. With `by_hash`, ids that are known only by their hashes are searched for as well: in whole texts with an
    @, in emails anywhere, and in values of keys that end with `id`.
    """
    # The id of an array or an object is its compact JSON, which the line may write differently.
    if con.execute("SELECT 1 FROM searched_ids WHERE value[1] IN ('[', '{')").fetchall():
        return list(keys.to_pylist())
    table = decode_letter_escapes(keys, texts)
    found = _keys_on_list(con, table, _SUSPECTS) if by_hash else set()
    return sorted(found | {key for key, _ in _holding(con, table, "true")})


def _keys_on_list(con: duckdb.DuckDBPyConnection, texts: pa.Table, mentions: str) -> set[int]:
    """Returns the keys of the texts that hold an id on the suppression list; the query `mentions` extracts the ids."""
    with engine.registered(con, texts=_in_pieces(texts)):
        con.execute(f"CREATE OR REPLACE TEMP TABLE mentions AS {mentions}")
    value = "CASE WHEN kind = 'email' THEN fold_email(raw) ELSE raw END"
    ids = ids_on_list(f"SELECT kind, raw, {value} AS value FROM (SELECT DISTINCT kind, raw FROM mentions)")
    return {key for (key,) in con.execute(_SQL["keys_on_list"].format(ids=ids)).fetchall()}


def _holding(con: duckdb.DuckDBPyConnection, texts: pa.Table, condition: str) -> list[tuple[int, str]]:
    """Returns the keys of the texts that hold an id which is known in plain text, with the texts in searchable form."""
    with engine.registered(con, texts=_in_pieces(texts)):
        return con.execute(_SQL["holding"].format(condition=condition)).fetchall()


def _in_pieces(table: pa.Table) -> pa.Table:
    """Splits the table into batches, so that the engine's threads can share them."""
    return pa.Table.from_batches(table.to_batches(TEXTS_AT_ONCE), table.schema)
