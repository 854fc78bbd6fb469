"""Which messages and which texts are of persons who were forgotten, for whole batches in the engine.

The ids of forgotten persons are known by their hashes alone: a table `forgotten` (`salt`, `hash`). Only different ids
are hashed, because there are fewer of them than messages. Ids that are known by name as well are in `sought`
(`kind`, `value`), which is empty while a load runs.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ..catalog import PERSON_COLUMNS, PERSON_KEYS
from ..segment.identity import KEYED, Id, SuppressionKey, fold, fold_email, lower_email
from ..segment.message import EXTRA
from . import engine

PIECE = 4096  # texts
BLOCK = 64  # bytes that SHA-256 takes at a time
NULS = ("\0", "\\x00")  # between the letters of UTF-16, and how `_rejects` has them
_HASHED = "concat_ws(chr(10), salt, kind, value)"
_HASH_SQL = (
    f"CASE WHEN inside IS NULL THEN sha256({_HASHED})"
    f" ELSE sha256(outside || unhex(sha256(inside || encode({_HASHED})))) END"
)

# An email in any text: a text of JSON that has an @, all between blanks and quotes, and of that what words and
# punctuation leave, and an address of RFC 5322. Marks and joiners are parts of letters.
_TEXT = r'"((?:[^"\\@]|\\.)*@(?:[^"\\]|\\.)*)'
_RUN = r"[^\s\"]*@[^\s\"]*"
_DOMAIN = r"[\pL\pM\pN\x{200C}\x{200D}._-]+"
_EMAILS = (
    r"[^\s\"<>()\[\]{},;:=\\|@]+@" + _DOMAIN,
    r"[\pL\pM\pN\x{200C}\x{200D}.!#$%&'*+/=?^_`{|}~-]+@" + _DOMAIN,
)
_WORDS = "|".join(PERSON_KEYS)
# A key and its value: in JSON, in what should be JSON, and in `key=value`.
_VALUE = r"""("(?:[^"\\]|\\(?s:.))*|'[^']*|[^\s"',\[\]{}&;]+)"""
_KEYED = rf"""(?i)((?:{_WORDS})[_ -]?id)["']?\s*[:=]\s*{_VALUE}"""
_ANY_KEYED = rf"""(?i)"([^"]*id[^a-z0-9"]*)"\s*:\s*{_VALUE}"""
_BEFORE = '"<>()[]{},;:=\\|@'  # signs that no email goes on from
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_SIGNS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
# With the key's words in front: `context_traits_contact_id` holds a contact's id.
_KINDS_SQL = ", ".join(f"('{word}', '{kind}')" for word, kinds in PERSON_KEYS.items() for kind in kinds)
_ANY_KIND_SQL = "('', 'user_id'), ('', 'anonymous_id'), ('', 'contact_id')"


def register_suppressed(
    con: duckdb.DuckDBPyConnection,
    pairs: Iterable[tuple[str, str]],
    key: SuppressionKey | None = None,
    sought: Collection[Id] = (),
) -> None:
    """Makes the tables that all else here reads.

    `forgotten` has pairs of salt and hash, `salts` what those need that were made with a key, and `sought` the ids that
    are known by name.
    """
    _define(con)
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
    con.execute("CREATE OR REPLACE TEMP TABLE sought (kind VARCHAR, value VARCHAR, folded VARCHAR)")
    if sought:
        con.executemany("INSERT INTO sought VALUES (?, ?, ?)", [(*id_, fold(id_.value)) for id_ in sought])


def _pads(key: SuppressionKey | None) -> dict[str, bytes | None]:
    """The two blocks that HMAC-SHA256 (RFC 2104) puts before what it hashes: the key with the bits of a constant."""
    if key is None:
        return {"inside": None, "outside": None}
    block = hashlib.sha256(key.secret).digest() if len(key.secret) > BLOCK else key.secret
    block = block.ljust(BLOCK, b"\0")
    return {"inside": bytes(byte ^ 0x36 for byte in block), "outside": bytes(byte ^ 0x5C for byte in block)}


def _define(con: duckdb.DuckDBPyConnection) -> None:
    """Gives the engine the functions of `identity`, so that ids are compared by one rule everywhere."""
    if con.execute("SELECT 1 FROM duckdb_functions() WHERE function_name = 'py_fold_email'").fetchall():
        return
    functions: dict[str, Callable[[str], str]] = {
        "py_fold_email": fold_email,
        "py_lower_email": lower_email,
        "py_searchable": _searchable,
        "py_unescaped": _unescaped,
    }
    for name, function in functions.items():
        con.create_function(name, _vectorised(function), ["VARCHAR"], "VARCHAR", type="arrow")  # type: ignore[call-overload]
    con.execute(_MACROS)


def _vectorised(function: Callable[[str], str]) -> Callable[[pa.ChunkedArray], pa.Array]:
    def applied(texts: pa.ChunkedArray) -> pa.Array:
        return pa.array([text if text is None else function(text) for text in texts.to_pylist()], pa.string())

    return applied


# Python is asked about what the engine might see in another way, which is little.
_MACROS = r"""
    CREATE OR REPLACE TEMP MACRO is_plain(t) AS regexp_full_match(t, '[!-~]*');
    CREATE OR REPLACE TEMP MACRO fold_email(t) AS CASE WHEN is_plain(t) THEN lower(t) ELSE py_fold_email(t) END;
    CREATE OR REPLACE TEMP MACRO unescaped(t) AS CASE WHEN contains(t, '\') THEN py_unescaped(t) ELSE t END;
    CREATE OR REPLACE TEMP MACRO searchable(t) AS
        CASE WHEN strlen(t) = length(t) AND NOT contains(t, '\') THEN lower(t) ELSE py_searchable(t) END"""


def suppress(con: duckdb.DuckDBPyConnection) -> int:
    """Fills the table `suppressed` with the `seq` of the `messages` of forgotten persons; how many there are.

    What the catalogue does not know stands in columns of `messages`, or as rows of `extras`.
    """
    con.execute("CREATE OR REPLACE TABLE suppressed (seq BIGINT, id VARCHAR)")
    there = set(con.sql("FROM messages LIMIT 0").columns)
    for column, kinds in PERSON_COLUMNS.items():
        for cell in there.intersection((column, EXTRA + column)):
            name = engine.name(cell)
            text = f"as_text({name})" if cell.startswith(EXTRA) else name
            if _gone(con, f"SELECT DISTINCT {text} AS id FROM messages WHERE {name} IS NOT NULL", kinds):
                con.execute(f"INSERT INTO suppressed SELECT seq, id FROM messages WHERE {text} IN (FROM gone)")
        extras = f'(SELECT seq, as_text(value) AS id FROM extras WHERE "column" = {engine.literal(column)})'
        if _gone(con, f"SELECT DISTINCT id FROM {extras} SEMI JOIN messages USING (seq)", kinds):
            con.execute(
                "INSERT INTO suppressed SELECT seq, id FROM messages"
                f" WHERE seq IN (SELECT seq FROM {extras} WHERE id IN (FROM gone))"
            )
    con.execute("CREATE OR REPLACE TABLE suppressed AS SELECT DISTINCT seq, id FROM suppressed")
    return int(con.execute("SELECT count(*) FROM suppressed").fetchall()[0][0])


def _gone(con: duckdb.DuckDBPyConnection, ids: str, kinds: Sequence[str]) -> int:
    """Makes the table `gone` of those ids of a query that are of forgotten persons; how many there are."""
    con.execute(f"CREATE OR REPLACE TEMP TABLE ids AS {ids}")
    con.execute(f"CREATE OR REPLACE TEMP TABLE gone AS SELECT DISTINCT id FROM ({known(ids_of('ids', kinds))})")
    return int(con.execute("SELECT count(*) FROM gone").fetchall()[0][0])


def people(ids: str) -> str:
    """A query of those in the column `person` of `ids` (`email:...`, the kind before the id) who were forgotten."""
    return known(ids_of(f"(SELECT person, person AS id FROM {ids})", ["tagged"]))


def ids_of(texts: str, kinds: Iterable[str]) -> str:
    """A query of the ids in the column `id` of `texts`, which holds these kinds, as `identity.id_of` gives them.

    It has all columns of `texts`, and `raw` (the id as it stands there), `kind` and `value`.
    """
    return " UNION ALL ".join(_ids_of_kind(texts, kind) for kind in kinds)


def _ids_of_kind(texts: str, kind: str) -> str:
    """An id with an @ is an email in any column but a contact's id."""
    if kind == "tagged":
        tagged = f"(SELECT *, split_part(id, ':', 1) AS tag, substr(id, strpos(id, ':') + 1) AS raw FROM {texts})"
        is_email = "contains(raw, '@') AND tag <> 'contact_id'"
        return (
            f"SELECT * EXCLUDE (tag), CASE WHEN {is_email} THEN 'email' ELSE tag END AS kind,"
            f" CASE WHEN {is_email} THEN fold_email(raw) ELSE raw END AS value FROM {tagged}"
        )
    test = {"email": "contains(id, '@')", "contact_id": "id <> ''"}.get(kind, "NOT contains(id, '@')")
    value = "fold_email(id)" if kind == "email" else "id"
    return f"SELECT *, id AS raw, '{kind}' AS kind, {value} AS value FROM {texts} WHERE {test}"


def known(ids: str) -> str:
    """A query of those of some ids (`raw`, `kind` and `value` among their columns) that are of forgotten persons."""
    earlier = "REPLACE (py_lower_email(raw) AS value) FROM sent WHERE kind = 'email' AND NOT is_plain(raw)"
    return f"WITH sent AS MATERIALIZED ({ids}) {_known(f'FROM sent UNION ALL SELECT * {earlier}')}"


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
    table = _plain(keys, texts, NULS)
    found = _by_hash(con, table, _MENTIONS_SQL)
    emails = [value for (value,) in con.execute("SELECT value FROM sought WHERE kind = 'email'").fetchall()]
    if emails:
        for key, text in _holding(con, table, "kind = 'email'"):
            if any(_stands_alone(text, email) for email in emails):
                found.add(key)
    return sorted(found)


def suspects(con: duckdb.DuckDBPyConnection, keys: pa.Array, texts: pa.Array, by_hash: bool) -> list[int]:
    """The keys of the lines that may be messages of forgotten persons, to be read with care; none is missing.

    A message has an id of the person in a text or a number of its own. Ids that are `sought` are looked for anywhere,
    and with `by_hash` those as well that are known by their hashes alone: whole texts with an @, emails anywhere, and
    values of keys that end with `id`.
    """
    # An array or an object is an id as its compact JSON, which need not be how the line spells it.
    if con.execute("SELECT 1 FROM sought WHERE value[1] IN ('[', '{')").fetchall():
        return list(keys.to_pylist())
    table = _plain(keys, texts)
    found = _by_hash(con, table, _SUSPECTS_SQL) if by_hash else set()
    return sorted(found | {key for key, _ in _holding(con, table, "true")})


def _by_hash(con: duckdb.DuckDBPyConnection, table: pa.Table, mentions: str) -> set[int]:
    """The keys of the texts that hold an id of the table `forgotten`."""
    _register(con, table)
    con.execute(f"CREATE OR REPLACE TEMP TABLE mentions AS {mentions}")
    con.unregister("texts")
    value = "CASE WHEN kind = 'email' THEN fold_email(raw) ELSE raw END"
    ids = f"SELECT kind, raw, {value} AS value FROM (SELECT DISTINCT kind, raw FROM mentions)"
    found = con.execute(f"SELECT DISTINCT key FROM mentions SEMI JOIN ({known(ids)}) USING (kind, raw)")
    return {key for (key,) in found.fetchall()}


def _holding(con: duckdb.DuckDBPyConnection, table: pa.Table, which: str) -> list[tuple[int, str]]:
    """The keys of the texts that hold a value that is sought, with the texts as they are searched."""
    _register(con, table)
    found: list[tuple[int, str]] = con.execute(
        "WITH folded AS MATERIALIZED (SELECT key, searchable(text) AS text FROM texts)"
        " SELECT key, text FROM folded"
        f" WHERE EXISTS (SELECT 1 FROM sought WHERE {which} AND contains(folded.text, sought.folded))"
    ).fetchall()
    con.unregister("texts")
    return found


def _register(con: duckdb.DuckDBPyConnection, table: pa.Table) -> None:
    # In pieces, which the engine's threads share.
    con.register("texts", pa.Table.from_batches(table.to_batches(PIECE), table.schema))


_RUNS_SQL = f"unnest(regexp_extract_all(text, {engine.literal(_RUN)}))"
_FOUND_SQL = ", ".join(f"regexp_extract_all(plain, {engine.literal(email)})" for email in _EMAILS)
_EMAILS_SQL = f"""
    SELECT key, 'email' AS kind, rtrim(raw, '.') AS raw
    FROM (SELECT key, {_RUNS_SQL} AS run FROM texts WHERE contains(text, '@')) runs
    JOIN (SELECT run, unnest(flatten([[plain], {_FOUND_SQL}])) AS raw
        FROM (SELECT run, unescaped(run) AS plain
            FROM (SELECT DISTINCT {_RUNS_SQL} AS run FROM texts WHERE contains(text, '@')))) found USING (run)
    UNION ALL SELECT key, 'email', unescaped(unnest(regexp_extract_all(text, {engine.literal(_TEXT)}, 1)))
    FROM texts WHERE contains(text, '@')"""


def _keyed(pattern: str, kinds: str) -> str:
    """The values of the keys that match, as ids of the kinds of a relation `words(word, kind)`."""
    found = engine.literal(pattern)
    return f"""
        SELECT key, CASE WHEN kind <> 'contact_id' AND contains(raw, '@') THEN 'email' ELSE kind END AS kind, raw FROM (
            SELECT key, regexp_replace(lower(regexp_extract(pair, {found}, 1)), '[_ -]?id$', '') AS word,
                unescaped(regexp_replace(regexp_extract(pair, {found}, 2), '^["'']', '')) AS raw
            FROM (SELECT key, unnest(regexp_extract_all(text, {found})) AS pair FROM texts)) pairs
        JOIN (VALUES {kinds}) words(ending, kind) ON ends_with(pairs.word, words.ending)"""


_MENTIONS_SQL = f"{_EMAILS_SQL} UNION ALL {_keyed(_KEYED, _KINDS_SQL)}"
_SUSPECTS_SQL = f"{_EMAILS_SQL} UNION ALL {_keyed(_ANY_KEYED, _ANY_KIND_SQL)}"


def _plain(keys: pa.Array, texts: pa.Array, without: Iterable[str] = ()) -> pa.Table:
    """Keys and texts, with those of JSON's escapes written out that stand for letters, and without some signs."""
    try:
        texts = texts.cast(pa.large_string())
    except pa.ArrowInvalid:
        texts = pa.array([text.decode(errors="replace") for text in texts.to_pylist()], pa.large_string())
    for sign in without:
        if pc.any(pc.match_substring(texts, sign)).as_py():
            texts = pc.replace_substring(texts, sign, "")
    table = pa.table({"key": keys, "text": texts})
    escaped = pc.match_substring(texts, "\\u")
    written = table.filter(escaped)
    texts = pa.array(map(_written_out, written["text"].to_pylist()), pa.large_string())
    return pa.concat_tables([table.filter(pc.invert(escaped)), written.set_column(1, "text", texts)])


def _written_out(text: str) -> str:
    def letter(escape: re.Match[str]) -> str:
        code = int(escape[1] or "0", 16)
        return escape[0] if code < 0x20 or code in (0x22, 0x5C) else chr(code)

    return _whole(_ESCAPE.sub(letter, text))


def _unescaped(text: str) -> str:
    """Text of JSON with its escapes written out; what is none is left."""

    def sign(escape: re.Match[str]) -> str:
        return chr(int(escape[1], 16)) if escape[1] else _SIGNS.get(escape[2], escape[2])

    return _whole(_ESCAPE.sub(sign, text))


def _whole(text: str) -> str:
    """The text with surrogates that are pairs made one letter."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _searchable(text: str) -> str:
    return fold(_unescaped(text))


def _stands_alone(text: str, email: str) -> bool:
    """Whether an email stands in a text other than as a part of a longer one."""
    at = text.find(email)
    while at >= 0:
        before, end = text[max(0, at - 1) : at], at + len(email)
        after = text[end : end + 64].lstrip(".")[:1]  # an email ends a sentence too
        if (not before or before.isspace() or before in _BEFORE) and not _goes_on(after):
            return True
        at = text.find(email, at + 1)
    return False


def _goes_on(sign: str) -> bool:
    """Whether a domain goes on with this sign; "" is the text's end."""
    return sign != "" and (unicodedata.category(sign)[0] in "LMN" or sign in "-_@\u200c\u200d")
