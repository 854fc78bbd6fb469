"""Which messages and which texts are of persons who were forgotten, for whole batches in the engine.

The ids of forgotten persons are known by their hashes alone: a table `forgotten` (`salt`, `hash`). Only different ids
are hashed, because there are fewer of them than messages.
"""

import hashlib
import re
from collections.abc import Iterable

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ..catalog import PERSON_COLUMNS, PERSON_KEYS
from ..identity import KEYED, Key
from ..messages import EXTRA
from . import values

PIECE = 4096  # texts
BLOCK = 64  # bytes that SHA-256 takes at a time
_TEXT = "concat_ws(chr(10), salt, kind, value)"
_HASH_SQL = (
    f"CASE WHEN inside IS NULL THEN sha256({_TEXT})"
    f" ELSE sha256(outside || unhex(sha256(inside || encode({_TEXT})))) END"
)
_EMAIL = r"[^\s\"<>()\[\]{},;:=\\|@]+@[\pL\pN.-]+"
_WORDS = "|".join(PERSON_KEYS)
_KEYED = rf'(?i)"[^"]*(?:{_WORDS})[_ -]?id"\s*:\s*(?:"(?:[^"\\]|\\.)*|[^\s",\[\]{{}}]+)'
_VALUE = rf'(?i)^"[^"]*(?:{_WORDS})[_ -]?id"\s*:\s*"?((?s:.*))$'
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
_UNESCAPED = f"regexp_extract(pair, {values.literal(_VALUE)}, 1)"
for escape in ("/", '"', "\\"):
    _UNESCAPED = f"replace({_UNESCAPED}, '\\{escape}', '{escape}')"
# With the key's words in front: `context_traits_contact_id` holds a contact's id.
_KINDS_SQL = ", ".join(f"('{word}', '{kind}')" for word, kinds in PERSON_KEYS.items() for kind in kinds)


def remember(con: duckdb.DuckDBPyConnection, pairs: Iterable[tuple[str, str]], key: Key | None = None) -> None:
    """Makes the table `forgotten` of pairs of salt and hash, and `salts` with what those need that have a key."""
    listed = list(pairs)
    con.register("pairs", pa.table({"salt": [salt for salt, _ in listed], "hash": [hash_ for _, hash_ in listed]}))
    con.execute(
        "CREATE OR REPLACE TEMP TABLE forgotten AS SELECT salt::VARCHAR AS salt, hash::VARCHAR AS hash FROM pairs"
    )
    con.unregister("pairs")
    con.execute(
        "CREATE OR REPLACE TEMP TABLE salts AS SELECT DISTINCT salt, CASE WHEN keyed THEN $inside::BLOB END AS inside,"
        " CASE WHEN keyed THEN $outside::BLOB END AS outside"
        " FROM (SELECT salt, starts_with(salt, $mark) AS keyed FROM forgotten)",
        {**_pads(key), "mark": KEYED},
    )


def _pads(key: Key | None) -> dict[str, bytes | None]:
    """The two blocks that HMAC-SHA256 (RFC 2104) puts before what it hashes: the key with the bits of a constant."""
    if key is None:
        return {"inside": None, "outside": None}
    block = hashlib.sha256(key.secret).digest() if len(key.secret) > BLOCK else key.secret
    block = block.ljust(BLOCK, b"\0")
    return {"inside": bytes(byte ^ 0x36 for byte in block), "outside": bytes(byte ^ 0x5C for byte in block)}


def suppress(con: duckdb.DuckDBPyConnection) -> int:
    """Fills the table `suppressed` with the `seq` of the `messages` of forgotten persons; how many there are."""
    con.execute("CREATE OR REPLACE TABLE suppressed (seq BIGINT, id VARCHAR)")
    there = set(con.sql("FROM messages LIMIT 0").columns)
    for column, kinds in PERSON_COLUMNS.items():
        cell = next((name for name in (column, EXTRA + column) if name in there), None)
        if cell is None:
            continue
        name = values.name(cell)
        text = f"as_text({name})" if cell.startswith(EXTRA) else name
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE ids AS SELECT DISTINCT {text} AS id FROM messages WHERE {name} IS NOT NULL"
        )
        tests = [
            f"SELECT id, '{kind}' AS kind, {_comparable(kind)} AS value FROM ids WHERE {_is(kind)}" for kind in kinds
        ]
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE gone AS SELECT DISTINCT id FROM ({_known(' UNION ALL '.join(tests))})"
        )
        if con.execute("SELECT count(*) FROM gone").fetchall()[0][0]:
            con.execute(f"INSERT INTO suppressed SELECT seq, id FROM messages WHERE {text} IN (FROM gone)")
    con.execute("CREATE OR REPLACE TABLE suppressed AS SELECT DISTINCT seq, id FROM suppressed")
    return int(con.execute("SELECT count(*) FROM suppressed").fetchall()[0][0])


def people(ids: str) -> str:
    """A query of those in the column `person` of `ids` (`email:...`, the kind before the id) who were forgotten."""
    return _known(
        "SELECT person, CASE WHEN contains(person, '@') THEN 'email' ELSE split_part(person, ':', 1) END AS kind,"
        f" substr(person, strpos(person, ':') + 1) AS value FROM {ids}"
    )


def _comparable(kind: str) -> str:
    return "lower(trim(id))" if kind == "email" else "id"


def _is(kind: str) -> str:
    """An id with an @ is an email in any column but a contact's id."""
    return {"email": "contains(id, '@')", "contact_id": "true"}.get(kind, "NOT contains(id, '@')")


def _known(ids: str) -> str:
    """Those of some `ids` (`kind` and `value` among their columns) that are of forgotten persons."""
    return (
        "SELECT * EXCLUDE (salt, hash)"
        f" FROM (SELECT i.*, salt, {_HASH_SQL} AS hash FROM ({ids}) i CROSS JOIN salts)"
        " SEMI JOIN forgotten USING (salt, hash)"
    )


def mentioning(con: duckdb.DuckDBPyConnection, keys: pa.Array, texts: pa.Array) -> list[int]:
    """The keys of the texts that mention forgotten persons: an email anywhere, other ids as the value of a key.

    A key is one whose name ends with `userId`, `contact_id` and so on. Texts need be neither JSON nor UTF-8.
    """
    table = _plain(keys, texts)
    # In pieces, which the engine's threads share.
    con.register("texts", pa.Table.from_batches(table.to_batches(PIECE), table.schema))
    con.execute(_MENTIONS_SQL)
    con.unregister("texts")
    found = con.execute(
        "SELECT DISTINCT key FROM mentions SEMI JOIN"
        f" ({_known('SELECT DISTINCT kind, value FROM mentions')}) USING (kind, value) ORDER BY key"
    )
    return [key for (key,) in found.fetchall()]


_MENTIONS_SQL = f"""
    CREATE OR REPLACE TEMP TABLE mentions AS
    SELECT key, 'email' AS kind, rtrim(lower(unnest(regexp_extract_all(text, {values.literal(_EMAIL)}))), '.') AS value
    FROM texts WHERE contains(text, '@')
    UNION ALL
    SELECT key, kind, {_UNESCAPED} AS value
    FROM (SELECT key, unnest(regexp_extract_all(text, {values.literal(_KEYED)})) AS pair FROM texts)
    JOIN (VALUES {_KINDS_SQL}) words(word, kind)
        ON ends_with(regexp_extract(lower(pair), '^"([^"]*?)[_ -]?id"', 1), word)"""


def _plain(keys: pa.Array, texts: pa.Array) -> pa.Table:
    """Keys and texts, with those of JSON's escapes written out that stand for letters."""
    try:
        texts = texts.cast(pa.large_string())
    except pa.ArrowInvalid:
        texts = pa.array([text.decode(errors="replace") for text in texts.to_pylist()], pa.large_string())
    table = pa.table({"key": keys, "text": texts})
    escaped = pc.match_substring(texts, "\\u")
    written = table.filter(escaped)
    texts = pa.array(map(_written_out, written["text"].to_pylist()), pa.large_string())
    return pa.concat_tables([table.filter(pc.invert(escaped)), written.set_column(1, "text", texts)])


def _written_out(text: str) -> str:
    def letter(escape: re.Match[str]) -> str:
        code = int(escape[1], 16)
        return escape[0] if code < 0x20 or code in (0x22, 0x5C) else chr(code)

    return _ESCAPED.sub(letter, text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
